from mpcnode.graph import Graph
def compile(graph: Graph) -> dict[str, Graph]:
    return {"legal": graph}
