//! Where the work is done: by the running node, through its control socket, or by the command itself, with the home's lock.

use std::{path::PathBuf, sync::Arc};

use tokio::signal::unix::{SignalKind, signal};
use tributary_store::{Store, StoreOptions};

use super::{CliError, Context, Exit};
use crate::{
    config::Config,
    control::{
        Cancel, ClientError, ControlClient,
        api::{Code, Problem},
    },
    home::{Home, HomeLock, MachineKeys},
    machine::{Machine, MachineOptions, Silent, system_clock},
};

impl From<Code> for Exit {
    fn from(code: Code) -> Self {
        match code {
            Code::Failed => Self::Failed,
            Code::Usage => Self::Usage,
            Code::VerificationFailed => Self::VerificationFailed,
            Code::AccessDenied => Self::AccessDenied,
            Code::NotFound => Self::NotFound,
            Code::Network => Self::Network,
        }
    }
}

impl From<Problem> for CliError {
    fn from(problem: Problem) -> Self {
        let Problem { code, message, cause, hint } = problem;
        Self { code: code.into(), what: message, cause, hint }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem(problem) => problem.into(),
            other => Problem::of(Code::Failed, &other).into(),
        }
    }
}

/// Turns any error that problems are made of into the end of a command.
pub(super) fn told(error: impl Into<Problem>) -> CliError {
    error.into().into()
}

/// How a store of this configuration is opened.
pub(super) fn store_options(config: &Config) -> StoreOptions {
    StoreOptions { quota_bytes: config.store.quota, ballast_bytes: config.store.ballast, ..StoreOptions::default() }
}

/// Runs the asynchronous part of a command.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::new(Exit::Failed, "the runtime could not be started").cause(error))?;
    let result = runtime.block_on(work);
    // A read of standard input that nobody needs any more cannot be interrupted, and must not hold up the end.
    runtime.shutdown_background();
    result
}

/// A home that this command has to itself.
pub(super) struct Offline {
    pub(super) home: Home,
    pub(super) config: Config,
    pub(super) store: Store,
    _lock: HomeLock,
}

impl Offline {
    /// The selling side, without a network: followers catch up when the node runs again.
    pub(super) fn machine(&self, keys: &MachineKeys) -> Result<Machine, CliError> {
        Machine::open(MachineOptions {
            home: &self.home,
            keys,
            store: self.store.clone(),
            streams: &self.config.streams,
            forget_epochs: self.config.forget_epochs,
            announcer: Arc::new(Silent),
            clock: system_clock(),
        })
        .map_err(told)
    }

    /// Writes what is queued and closes the store.
    pub(super) fn close(self) -> Result<(), CliError> {
        self.store.close().map_err(told)
    }
}

impl Context {
    /// Where the control socket is.
    pub(super) fn socket(&self, home: &Home, config: &Config) -> PathBuf {
        let path = config.control.socket.clone().unwrap_or_else(|| home.control_path());
        std::path::absolute(&path).unwrap_or(path)
    }

    /// The running node, if there is one.
    pub(super) fn running(&self) -> Result<Option<ControlClient>, CliError> {
        let home = self.home()?;
        let client = ControlClient::new(self.socket(&home, &self.config(None, &[])?));
        Ok(block_on(async { Ok(client.is_running().await?) })?.then_some(client))
    }

    /// The running node, for what only it can do.
    pub(super) fn node(&self) -> Result<ControlClient, CliError> {
        let home = self.home_path()?;
        self.running()?.ok_or_else(|| {
            CliError::new(Exit::Failed, format!("no node is running in {}", home.display()))
                .hint(format!("start it with `tributary run --home {}`", home.display()))
        })
    }

    /// Refuses while a node runs: for what cannot be done beside it.
    pub(super) fn stopped(&self, what: &str) -> Result<(), CliError> {
        match self.running()? {
            None => Ok(()),
            Some(_) => Err(CliError::new(Exit::Failed, format!("{what} while the node runs in this home"))
                .hint("stop the node first (Ctrl-C, or SIGTERM to its process), then run this again")),
        }
    }

    /// The home with its lock and its store, for work without a node.
    pub(super) fn offline(&self) -> Result<Offline, CliError> {
        let (home, config) = (self.home()?, self.config(None, &[])?);
        let lock = home.lock()?;
        let (store, report) = Store::open(home.store_path(), &store_options(&config)).map_err(told)?;
        tracing::debug!(?report, "store opened");
        Ok(Offline { home, config, store, _lock: lock })
    }

    /// Runs blocking work on the selling side of a home without a node; Ctrl-C and SIGTERM end it early, and in order. The work
    /// shuts the machine down itself, or leaves that to [`Context::with_machine`].
    pub(super) fn offline_machine<T: Send>(
        &self,
        work: impl FnOnce(&Machine, &Offline, &Cancel) -> Result<T, CliError> + Send,
    ) -> Result<T, CliError> {
        let offline = self.offline()?;
        let keys = self.keys(&offline.home)?;
        let machine = offline.machine(&keys)?;
        let cancel = Cancel::default();
        let result = interruptible(&cancel, || work(&machine, &offline, &cancel));
        drop(machine);
        offline.close()?;
        result
    }

    /// As [`Context::offline_machine`]; whatever the work sealed is durable before the command ends.
    pub(super) fn with_machine<T: Send>(
        &self,
        work: impl FnOnce(&Machine, &Offline, &Cancel) -> Result<T, CliError> + Send,
    ) -> Result<T, CliError> {
        self.offline_machine(|machine, offline, cancel| {
            let result = work(machine, offline, cancel);
            machine.shutdown().map_err(told).and(result)
        })
    }

    /// The home's secret keys.
    pub(super) fn keys(&self, home: &Home) -> Result<MachineKeys, CliError> {
        Ok(home.keys(self.passphrase()?.as_ref())?)
    }
}

/// Runs blocking work that Ctrl-C and SIGTERM end early, and in order.
pub(super) fn interruptible<T: Send>(
    cancel: &Cancel,
    work: impl FnOnce() -> Result<T, CliError> + Send,
) -> Result<T, CliError> {
    let (done, mut ended) = tokio::sync::oneshot::channel();
    std::thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work();
            // Nobody waits when signals cannot be watched.
            let _ = done.send(());
            result
        });
        let watch = async {
            let failed = |error| CliError::new(Exit::Failed, "signals cannot be watched").cause(error);
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
            loop {
                tokio::select! {
                    // An error means that the work has panicked.
                    _ = &mut ended => return Ok(()),
                    _ = interrupt.recv() => cancel.cancel(),
                    _ = terminate.recv() => cancel.cancel(),
                }
            }
        };
        let watched = block_on(watch);
        let result =
            worker.join().map_err(|_| CliError::new(Exit::Failed, "the work ended unexpectedly; see the log"))?;
        watched.and(result)
    })
}
