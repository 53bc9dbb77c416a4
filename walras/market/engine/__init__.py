"""Winner determination over columns of integers, compiled, for pools with very many bids. Pure.

Nothing here is imported before a pool is large enough to need it: numba takes longer to load than a small
clearing takes in `walras.market.auction`, whose rules these are.
"""
