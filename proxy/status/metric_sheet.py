"""Samples by family on their way into Prometheus' text format. (pure but for the client library)"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from endpoints.durations import Buckets
from proxy.sketch import Sketch
from proxy.status.metric_families import FAMILIES, Family, Kind

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUANTILES = (0.5, 0.95, 0.99)
_FAMILIES = {each.name: each for each in FAMILIES}
# Their names are the reference's and lack the ending the client library gives every counter.
_ODD_COUNTERS = [each.name for each in FAMILIES if each.kind is Kind.COUNTER and not each.name.endswith("_total")]


@dataclass(slots=True)
class Sheet:
    """The samples of one scrape, by family."""

    metrics: dict[str, Metric] = field(default_factory=dict)

    def put(self, name: str, value: float | None, *labels: str) -> None:
        """One sample; None is nothing to tell."""
        if value is None:
            return
        metric, family = self._metric(name), _FAMILIES[name]
        metric.add_sample(name, dict(zip(family.labels, labels, strict=True)), value)

    def put_all(self, values: Iterable[tuple[str, float | None]], *labels: str) -> None:
        """Samples of several families under the same labels."""
        for name, value in values:
            self.put(name, value, *labels)

    def put_buckets(self, name: str, buckets: Buckets, *labels: str) -> None:
        """A histogram."""
        metric = self._metric(name)
        if isinstance(metric, HistogramMetricFamily):
            metric.add_metric(labels, buckets.cumulative(), buckets.total)

    def put_quantiles(self, name: str, sketch: Sketch, *labels: str) -> None:
        """The quantiles of a sketch, once it has any."""
        for share, value in zip(QUANTILES, sketch.quantiles(QUANTILES), strict=True):
            self.put(name, value, *labels, f"{share:g}")

    def families(self) -> list[Metric]:
        """Every family that has a sample, by name; the samples of each are sorted by their labels."""
        for metric in self.metrics.values():
            if metric.type != Kind.HISTOGRAM:  # whose buckets must stay in their order
                metric.samples.sort(key=lambda sample: list(sample.labels.items()))
        return [self.metrics[name] for name in sorted(self.metrics)]

    def _metric(self, name: str) -> Metric:
        metric = self.metrics.get(name)
        if metric is None:
            metric = self.metrics[name] = _open_family(_FAMILIES[name])
        return metric


def _open_family(family: Family) -> Metric:
    if family.kind is Kind.HISTOGRAM:
        return HistogramMetricFamily(family.name, family.text, labels=family.labels)
    if family.name in _ODD_COUNTERS:
        return Metric(family.name, family.text, Kind.GAUGE)
    return Metric(
        family.name.removesuffix("_total") if family.kind is Kind.COUNTER else family.name,
        family.text,
        family.kind,
    )


class _Families(Collector):
    """What the registry asks for the families."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterator[Metric]:
        """Every family, once."""
        return iter(self._metrics)


def write_metrics(metrics: Iterable[Metric]) -> bytes:
    """The families in the text format; may run in a thread."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(metrics))
    text = generate_latest(registry)
    for name in _ODD_COUNTERS:
        text = text.replace(b"# TYPE %s gauge\n" % name.encode(), b"# TYPE %s counter\n" % name.encode())
    return text
