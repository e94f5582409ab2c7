"""The proxy application."""

from django.apps import AppConfig

PRUNE_EVERY = 60.0  # seconds


class ProxyConfig(AppConfig):
    """Machine traffic: routing and relaying, and its log."""

    name = "proxy"
    verbose_name = "Proxy"

    def ready(self) -> None:
        """Have the prober's process look after the request log, and debug lines of metrics written."""
        from endpoints.chores import register_chore
        from proxy.finished import subscribe
        from proxy.metrics_log import log_metrics

        register_chore("request log", PRUNE_EVERY, keep_log)
        subscribe(log_metrics)


def keep_log() -> None:
    """Sum up and prune by the settings. Blocking; raises django.db.Error."""
    import time

    from endpoints.conf import conf
    from proxy.roll_ups import prune

    prune(time.time(), conf().request_log_days, conf().request_log_rollup_days)
