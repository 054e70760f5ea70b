"""Models of other frameworks as jax functions: a program of steps, one rule per operator, and the layers that their
operators have in common.
"""
