"""What the product says of itself: status, statistics and metrics, built when somebody asks.

Builders take a `Picture` (or the tallies alone) and return what becomes JSON; the views of `proxy.status_views`
and the portal's pages call the same ones. Nothing on the request path imports this package.
"""
