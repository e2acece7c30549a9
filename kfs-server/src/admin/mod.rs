//! The read-only pages of a server: `/`, `/status.json`, `/metrics`, `/healthz`, `/readyz`.
//!
//! They have a thread of their own and ask the machine like everybody else does; whatever is sent to their
//! port, the worst that happens is a closed connection. What they say of a machine comes from its [`Report`].
mod guard;
mod metrics;
mod page;
mod report;

use crate::observed::Counts;
use crate::running::{Answers, Phase, Server, Source, View};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use kfs_core::health::Reason;
use kfs_core::wire::Role;
pub(crate) use metrics::{Family, Kind};
pub(crate) use report::{Report, Series, Startup, StartupWork, Unit};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the charts get a point.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// Points kept: five minutes.
const SAMPLES_MAX: usize = 150;
/// No scripts, styles or pictures but the page's own, and no requests but to this server.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:";

/// What the pages are made from.
pub(crate) struct Pages<M: Server> {
    source: Source<M>,
    listen: SocketAddr,
    since: Instant,
    counts: Arc<Counts>,
    startup: Startup,
    history: Mutex<VecDeque<Sample>>,
}

#[derive(Debug)]
struct Sample {
    uptime_s: f64,
    series: Vec<Series>,
}

impl<M: Server> Pages<M> {
    pub(crate) fn new(
        source: Source<M>,
        listen: SocketAddr,
        counts: Arc<Counts>,
        startup: Startup,
    ) -> Self {
        Self {
            source,
            listen,
            since: Instant::now(),
            counts,
            startup,
            history: Mutex::default(),
        }
    }

    fn uptime_s(&self) -> f64 {
        self.since.elapsed().as_secs_f64()
    }

    fn series(&self, status: Option<&M::Status>) -> Vec<Series> {
        let mut series = status.map(Report::series).unwrap_or_default();
        series.extend([
            Series {
                label: "Messages in",
                unit: Unit::Count,
                value: self.counts.received().map(|(_, n)| n).sum(),
            },
            Series {
                label: "Network in",
                unit: Unit::Bytes,
                value: self.counts.body_bytes_received.get(),
            },
            Series {
                label: "Network out",
                unit: Unit::Bytes,
                value: self.counts.body_bytes_sent.get(),
            },
            Series {
                label: "Disk syncs",
                unit: Unit::Count,
                value: self.counts.disk_syncs.get(),
            },
        ]);
        series
    }

    fn sample(&self, view: &View<M::Status>) {
        let sample = Sample {
            uptime_s: self.uptime_s(),
            series: self.series(view.status.as_ref()),
        };
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == SAMPLES_MAX {
            history.pop_front();
        }
        history.push_back(sample);
    }

    fn history_json(&self) -> Value {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let points = history.iter().map(
            |sample| json!({ "uptime_s": sample.uptime_s, "series": series_json(&sample.series) }),
        );
        points.collect()
    }

    fn health(view: &View<M::Status>, answers: Answers) -> Vec<Reason> {
        let mut reasons = Vec::new();
        if answers == Answers::No {
            reasons.push(Reason::err(
                "NO_ANSWER",
                "the server does not answer; what is shown is old",
            ));
        }
        match &view.phase {
            Phase::Starting => {
                reasons.push(Reason::warn("STARTING", "it reads its data directory"))
            }
            Phase::Waiting { why } => reasons.push(Reason::warn("WAITING", why.clone())),
            Phase::Ready { .. } => {}
        }
        reasons.extend(view.status.as_ref().map(Report::health).unwrap_or_default());
        reasons
    }

    fn json(&self, view: &View<M::Status>, answers: Answers) -> Value {
        let (phase, waiting_for) = match &view.phase {
            Phase::Starting => ("starting", None),
            Phase::Waiting { why } => ("waiting", Some(why)),
            Phase::Ready { .. } => ("ready", None),
        };
        let counts = &self.counts;
        let mut all = json!({
            "role": role_name(M::ROLE),
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "listen": self.listen.to_string(),
            "uptime_s": self.uptime_s(),
            "phase": phase,
            "waiting_for": waiting_for,
            "ready": matches!(view.phase, Phase::Ready { .. }),
            "mode": if read_only(view) { "read-only" } else { "read-write" },
            "answers": answers == Answers::Yes,
            "health": report::health_json(&Self::health(view, answers)),
            "startup": self.startup.json(counts, &view.phase),
            "messages": {
                "received": counts.received().collect::<BTreeMap<_, _>>(),
                "sent": counts.sent().collect::<BTreeMap<_, _>>(),
                "body_bytes_received": counts.body_bytes_received.get(),
                "body_bytes_sent": counts.body_bytes_sent.get(),
            },
            "links": {
                "opened": counts.links_opened.get(),
                "closed": counts.links_closed.get(),
                "malformed": counts.links_malformed.get(),
            },
            "disk": {
                "reads": counts.disk_reads.get(),
                "bytes_read": counts.disk_bytes_read.get(),
                "writes": counts.disk_writes.get(),
                "bytes_written": counts.disk_bytes_written.get(),
                "syncs": counts.disk_syncs.get(),
                "errors": counts.disk_errors.get(),
            },
            "process": { "resident_bytes": resident_bytes() },
            "series": series_json(&self.series(view.status.as_ref())),
        });
        all[M::Status::KEY] = view.status.as_ref().map(Report::json).unwrap_or_default();
        all
    }
}

/// Serves `pages` at `listener` on a thread of its own until the server they are about has ended.
pub(crate) fn serve<M: Server>(
    listener: TcpListener,
    pages: Pages<M>,
) -> io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("kfs-http".into())
        .spawn(move || {
            runtime.block_on(async {
                let pages = Arc::new(pages);
                let about = pages.source.clone();
                let listener = match tokio::net::TcpListener::from_std(listener) {
                    Ok(listener) => guard::Guarded::new(listener),
                    Err(err) => return tracing::error!("no pages are served: {err}"),
                };
                let app = Router::new()
                    .route("/", get(front::<M>))
                    .route("/status.json", get(status::<M>))
                    .route("/metrics", get(metrics::<M>))
                    .route("/healthz", get(healthz::<M>))
                    .route("/readyz", get(readyz::<M>))
                    .with_state(Arc::clone(&pages));
                tokio::select! {
                    biased;
                    () = about.ended() => {}
                    never = sample(pages) => match never {},
                    served = axum::serve(listener, app).into_future() => {
                        if let Err(err) = served {
                            tracing::error!("pages are served no longer: {err}");
                        }
                    }
                }
            });
        })
}

async fn sample<M: Server>(pages: Arc<Pages<M>>) -> Infallible {
    let mut every = tokio::time::interval(SAMPLE_EVERY);
    loop {
        every.tick().await;
        pages.sample(&pages.source.last());
    }
}

async fn front<M: Server>(State(pages): State<Arc<Pages<M>>>) -> Response {
    let (view, answers) = pages.source.look().await;
    let mut all = pages.json(&view, answers);
    all["history"] = pages.history_json();
    let headers = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, Html(page::render(&all))).into_response()
}

async fn status<M: Server>(State(pages): State<Arc<Pages<M>>>) -> Response {
    let (view, answers) = pages.source.look().await;
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, pages.json(&view, answers).to_string()).into_response()
}

async fn metrics<M: Server>(State(pages): State<Arc<Pages<M>>>) -> Response {
    let (view, answers) = pages.source.look().await;
    let mut families = view
        .status
        .as_ref()
        .map(Report::families)
        .unwrap_or_default();
    let ready = u64::from(matches!(view.phase, Phase::Ready { .. }));
    let mut build = Family::new("build", "Which program this is", Kind::Gauge);
    build.push(
        &[
            ("role", role_name(M::ROLE)),
            ("version", env!("CARGO_PKG_VERSION")),
        ],
        1,
    );
    families.extend([
        build,
        Family::single("ready", "1 once it serves", Kind::Gauge, ready),
        Family::single(
            "answers",
            "1 if it answered this scrape",
            Kind::Gauge,
            u64::from(answers == Answers::Yes),
        ),
        Family::single(
            "resident_bytes",
            "Memory of the process",
            Kind::Gauge,
            resident_bytes(),
        ),
    ]);
    families.extend(metrics::counted(&pages.counts));
    match metrics::encode(families) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, err.to_string()).into_response(),
    }
}

async fn healthz<M: Server>(State(pages): State<Arc<Pages<M>>>) -> (StatusCode, &'static str) {
    // A server whose log fails does not go on: one that answers has a log that can be written.
    match pages.source.look().await.1 {
        Answers::Yes => (StatusCode::OK, "ok\n"),
        Answers::No => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the server does not answer\n",
        ),
    }
}

async fn readyz<M: Server>(State(pages): State<Arc<Pages<M>>>) -> (StatusCode, String) {
    let view = pages.source.last();
    match &view.phase {
        Phase::Ready { .. } if read_only(&view) => {
            (StatusCode::OK, "ready mode=read-only\n".into())
        }
        Phase::Ready { .. } => (StatusCode::OK, "ready\n".into()),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n".into()),
        Phase::Waiting { why } => (StatusCode::SERVICE_UNAVAILABLE, format!("waiting: {why}\n")),
    }
}

fn read_only<S: Report>(view: &View<S>) -> bool {
    view.status
        .as_ref()
        .is_some_and(|status| status.read_only().is_some())
}

fn series_json(series: &[Series]) -> Value {
    series
        .iter()
        .map(|s| json!({ "label": s.label, "unit": s.unit.name(), "value": s.value }))
        .collect()
}

const fn role_name(role: Role) -> &'static str {
    match role {
        Role::Meta => "meta",
        Role::Chunk => "chunk",
        Role::Client => "client",
    }
}

/// Memory of this process, as the kernel counts it; 0 where it does not say.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> =
        line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
    kib.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_how_much_memory_this_process_has() {
        assert!(resident_bytes() > 1 << 20);
    }
}
