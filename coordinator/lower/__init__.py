"""From the front end's graph to the protocol graph: rules and passes, each graph in, graph out, verified after every one."""
