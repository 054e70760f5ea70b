"""From jax's equations to the graph that the parties run.

`rules` write ops for equations (stage legal), `simplify` and `hoist` take away what is computed twice or for nothing
(folded), `fixedpoint` and `refine` move truncations (late), and a last look at the result makes it final.  `passes`
runs them, graph in, graph out, each verified.  `builder` and `rewrite` are their tools, `approx`, `order` and `ranges`
the numeric functions.
"""
