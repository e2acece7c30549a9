//! What makes a daemon of a server: the ready line, signals, and the exit code.
use crate::admin::Report;
use crate::config::Logging;
use crate::error::{Code, StartError};
use crate::running::{Exit, Running};
use crate::telemetry;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often a start that takes longer says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);
/// What a process ended by a second signal exits with: what it had begun is not finished.
const EXIT_AT_ONCE: i32 = 1;

/// Logs as told, starts a server, says when it is ready, and ends with it. An error is printed on stderr.
#[expect(
    private_bounds,
    reason = "only this crate's servers are made daemons of"
)]
pub fn run<S: Report + Clone>(
    logging: &Logging,
    start: impl FnOnce() -> Result<Running<S>, StartError>,
) -> ExitCode {
    match live(logging, start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => fail(&err),
    }
}

/// Prints an error; gives the exit code that belongs to it.
pub fn fail(err: &StartError) -> ExitCode {
    // With stderr gone there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{err}");
    ExitCode::from(err.code.exit_code())
}

fn live<S: Report + Clone>(
    logging: &Logging,
    start: impl FnOnce() -> Result<Running<S>, StartError>,
) -> Result<(), StartError> {
    telemetry::init(&logging.filter, logging.format)?;
    let unable = |err| {
        StartError::new(
            Code::DataUnusable,
            format!("cannot watch for signals: {err}"),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unable)?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(unable)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unable)?;
        let running = start()?;
        tracing::info!(listen = %running.listen, data = %running.data().display(), "started");
        let exit = tokio::select! {
            biased;
            () = either(&mut terminate, &mut interrupt) => {
                tracing::info!("stopping: a second signal ends it at once");
                tokio::select! {
                    biased;
                    exit = running.stop() => exit,
                    () = either(&mut terminate, &mut interrupt) => {
                        tracing::warn!("ended at once");
                        // Nothing is waited for: a disk that hangs would hold up everything else.
                        std::process::exit(EXIT_AT_ONCE);
                    }
                }
            }
            exit = serve(&running) => exit,
        };
        match exit {
            Exit::Stopped | Exit::Killed => Ok(()),
            Exit::Fault(fault) => Err(StartError::fault(running.data(), &fault)),
            Exit::Panicked => Err(StartError::new(
                Code::Panicked,
                "the server broke; what failed stands above",
            )
            .help("start it again, and report this with the lines above")),
        }
    })
}

/// Says when the server is ready; gives its end.
async fn serve<S: Report + Clone>(running: &Running<S>) -> Exit {
    if let Err(exit) = ready(running).await {
        return exit;
    }
    let status = running.status().status;
    let mode = match status.as_ref().and_then(Report::read_only) {
        Some(why) => {
            tracing::warn!("changes are refused: {why}");
            " mode=read-only"
        }
        None => "",
    };
    let http = running
        .http
        .map(|addr| format!(" http={addr}"))
        .unwrap_or_default();
    let mut out = std::io::stdout();
    // With stdout gone there is nobody to tell; the server serves all the same.
    let _ = writeln!(out, "ready listen={}{http}{mode}", running.listen).and_then(|()| out.flush());
    running.wait().await
}

/// Waits until the server serves, and says how far it is if that takes long.
async fn ready<S: Report + Clone>(running: &Running<S>) -> Result<(), Exit> {
    let ready = running.ready();
    tokio::pin!(ready);
    loop {
        tokio::select! {
            biased;
            ready = &mut ready => return ready,
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                if let Some(line) = running.progress() {
                    let mut out = std::io::stdout();
                    // With stdout gone there is nobody to tell.
                    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
                }
            }
        }
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
