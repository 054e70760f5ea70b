"""From the front end's graph to the protocol graph: rules and passes, graph in, graph out, each verified."""
