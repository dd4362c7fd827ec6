//! What the server counts, in the text format of Prometheus.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hyper::{Method, StatusCode};

/// The counters of a server.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// By method and status, both of which are few: other methods than the registry's own count as one.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    /// Bytes that went out to the network, those of TLS and heads included.
    pub(crate) sent: Counter,
    /// Bytes that came in.
    pub(crate) received: Counter,
    /// Open connections.
    pub(crate) connections: Gauge,
    /// Bodies of uploads that come in right now.
    pub(crate) uploads: Gauge,
    /// Bytes of blobs that were read to find out whether they are what they should be.
    pub(crate) verified: Counter,
    /// Blobs that were found to be damaged.
    pub(crate) damaged: Counter,
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: usize) {
        self.0.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// How many there are of something.
#[derive(Debug, Default, Clone)]
pub(crate) struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// One more, until the guard is dropped.
    pub(crate) fn hold(&self) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }
}

/// One of those that a gauge counts.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts an answer.
    pub(crate) fn answered(&self, method: &Method, status: StatusCode) {
        let method = match method.as_str() {
            "GET" => "GET",
            "HEAD" => "HEAD",
            "POST" => "POST",
            "PUT" => "PUT",
            "PATCH" => "PATCH",
            "DELETE" => "DELETE",
            _ => "other",
        };
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((method, status.as_u16())).or_default() += 1;
    }

    /// All of them, as Prometheus reads it ("text-based format", version 0.0.4).
    pub(crate) fn text(&self) -> String {
        let mut text = Text::default();
        text.head("info", "gauge", "The program that serves.");
        text.value("info", &format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1);
        text.head(
            "requests_total",
            "counter",
            "Requests that were answered, by method and status.",
        );
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((method, status), count) in requests.iter() {
            text.value(
                "requests_total",
                &format!("{{method=\"{method}\",code=\"{status}\"}}"),
                *count,
            );
        }
        drop(requests);
        let counters = [
            ("sent_bytes_total", "Bytes sent to clients.", &self.sent),
            ("received_bytes_total", "Bytes received from clients.", &self.received),
            (
                "verified_bytes_total",
                "Bytes of blobs read to verify their digests.",
                &self.verified,
            ),
            (
                "damaged_blobs_total",
                "Blobs whose bytes do not have their digest.",
                &self.damaged,
            ),
        ];
        for (name, help, counter) in counters {
            text.head(name, "counter", help);
            text.value(name, "", counter.0.load(Ordering::Relaxed));
        }
        let gauges = [
            ("connections", "Open connections.", &self.connections),
            ("uploads", "Uploads that receive bytes right now.", &self.uploads),
        ];
        for (name, help, gauge) in gauges {
            text.head(name, "gauge", help);
            text.value(name, "", gauge.0.load(Ordering::Relaxed));
        }
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(
            self.0,
            "# HELP sealrs_registry_{name} {help}\n# TYPE sealrs_registry_{name} {kind}"
        );
    }

    fn value(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "sealrs_registry_{name}{labels} {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text() {
        let metrics = Metrics::default();
        metrics.answered(&Method::GET, StatusCode::OK);
        metrics.answered(&Method::GET, StatusCode::OK);
        metrics.answered(
            &Method::from_bytes(b"X\"Y").unwrap_or(Method::TRACE),
            StatusCode::NOT_FOUND,
        );
        metrics.sent.add(7);
        let held = metrics.connections.hold();
        drop(metrics.connections.hold());
        let text = metrics.text();
        for line in [
            "# TYPE sealrs_registry_requests_total counter",
            "sealrs_registry_requests_total{method=\"GET\",code=\"200\"} 2",
            "sealrs_registry_requests_total{method=\"other\",code=\"404\"} 1",
            "sealrs_registry_sent_bytes_total 7",
            "sealrs_registry_connections 1",
            "sealrs_registry_uploads 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
        assert!(text.ends_with('\n'));
        drop(held);
        assert!(metrics.text().contains("sealrs_registry_connections 0"));
    }
}
