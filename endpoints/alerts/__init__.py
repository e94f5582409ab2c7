"""Alerts: webhooks that are told when something breaks, and when it is well again.

    judging.py    facts and what was told of them -> what is told now: hysteresis, repeat limits, mute   (pure)
    sending.py    one message to one hook: through the network door, no redirects, few retries
    watching.py   the loop: look, take the right to tell (compare-and-set), send
    facts.py      the facts that the tables tell: endpoints that are down

The prober tells of endpoints; each web process looks at what only it can see, and one of them tells.
"""
