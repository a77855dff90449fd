//! Python bindings of the loader, for `redgrease.loader` and `redgrease.cli`.
//!
//! [`redgrease_loader`] does the work. The GIL is released while it does, and taken for each line of the log.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::{Args, FromArgMatches};
use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use redgrease_loader::arguments::{Arguments, join_delays};
use redgrease_loader::error::{Class, Error};
use redgrease_loader::files::Root;
use redgrease_loader::layers::{Layer, OPTIONS, Origin};
use redgrease_loader::loader::Loader;
use redgrease_loader::log::Log;
use redgrease_loader::program;
use redgrease_loader::settings::{LogFormat, Settings, default_config_files};
use redgrease_loader::watch::{Control, Watch};

/// Time between two looks for signals, which Python handles in the main thread.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// After a signal what is being loaded may end in this time.
const GRACE: Duration = Duration::from_secs(2);

/// `redgrease.loader._exception`.
static EXCEPTION_OF: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

fn raise(py: Python<'_>, error: &Error) -> PyErr {
    let class = match error.class {
        Class::Failed => "failed",
        Class::Usage => "usage",
        Class::Unreachable => "unreachable",
        Class::NoModule => "no-module",
        Class::Denied => "denied",
        Class::Tls => "tls",
        Class::Timeout => "timeout",
        Class::Path => "path",
    };
    EXCEPTION_OF
        .get_or_try_init(py, || -> PyResult<_> { Ok(py.import("redgrease.loader")?.getattr("_exception")?.unbind()) })
        .and_then(|of| of.bind(py).call1((class, error.to_string(), error.class.exit_code())))
        .map_or_else(|error| error, PyErr::from_value)
}

/// Calls `log(level, message)` in Python. What it raises is reported as that of a callback, and not raised.
fn log_to(log: Py<PyAny>) -> Log {
    Arc::new(move |level, message| {
        let _interpreter_ends = Python::try_attach(|py| {
            if let Err(error) = log.call1(py, (level.name(), message)) {
                error.write_unraisable(py, Some(log.bind(py)));
            }
        });
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A watch in a thread.
struct Running {
    control: Control,
    thread: JoinHandle<Result<(), Error>>,
}

/// A loader, for `redgrease.loader.GearsLoader`.
#[pyclass(frozen)]
pub struct LoaderCore {
    loader: Arc<Mutex<Loader>>,
    watch: Mutex<Option<Running>>,
}

impl LoaderCore {
    fn with<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&mut Loader) -> Result<T, Error> + Send) -> PyResult<T> {
        py.detach(|| work(&mut lock(&self.loader))).map_err(|error| raise(py, &error))
    }
}

impl Drop for LoaderCore {
    /// Ends the watch of a loader that nothing refers to any more.
    fn drop(&mut self) {
        if let Some(running) = lock(&self.watch).take() {
            running.control.stop();
        }
    }
}

#[pymethods]
impl LoaderCore {
    /// Connects. `options` are those of the command line, by their names.
    #[new]
    fn new(py: Python<'_>, log: Py<PyAny>, options: Vec<(String, Vec<String>)>) -> PyResult<Self> {
        let mut layer = Layer::default();
        for (name, values) in options {
            if let Some(option) = OPTIONS.iter().find(|option| option.name == name) {
                layer.set(option.name, values, Origin::Option);
            }
        }
        let log = log_to(log);
        let loader = py.detach(|| program::connected(Settings::resolve(layer, |_| None, &[])?.loader, log));
        let loader = loader.map_err(|error| raise(py, &error))?;
        Ok(Self { loader: Arc::new(Mutex::new(loader)), watch: Mutex::new(None) })
    }

    /// Loads a file or directory.
    fn add(&self, py: Python<'_>, path: PathBuf, recursive: bool) -> PyResult<()> {
        self.with(py, |loader| loader.add(vec![Root::new(&path, recursive)?]))?;
        if let Some(running) = &*lock(&self.watch) {
            running.control.wake();
        }
        Ok(())
    }

    fn register_script(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.with(py, |loader| loader.register_script(&Root::new(&path, false)?.path))
    }

    fn unregister_script(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.with(py, |loader| loader.unregister_script(&path))
    }

    fn update_dependencies(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        self.with(py, |loader| loader.update_dependencies(&Root::new(&path, false)?.path))
    }

    /// The files that could not be loaded.
    fn failed(&self, py: Python<'_>) -> Vec<PathBuf> {
        py.detach(|| lock(&self.loader).failed())
    }

    /// Watches in a thread.
    fn start(&self, py: Python<'_>, delay: f64) -> PyResult<()> {
        let mut running = lock(&self.watch);
        if running.is_some() {
            return Ok(());
        }
        let delay = Duration::try_from_secs_f64(delay).unwrap_or(Duration::ZERO);
        let mut watch = Watch::new(delay).map_err(|error| raise(py, &error))?;
        let (control, loader) = (watch.control(), self.loader.clone());
        let thread = std::thread::Builder::new().name("redgrease-loader".to_owned());
        let thread = thread.spawn(move || watch.run(&loader));
        let thread = thread.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        *running = Some(Running { control, thread });
        Ok(())
    }

    /// Ends the watch, after the file that is being loaded.
    fn stop(&self, py: Python<'_>) -> PyResult<()> {
        let Some(Running { control, thread }) = lock(&self.watch).take() else { return Ok(()) };
        control.stop();
        match py.detach(|| thread.join()) {
            Ok(result) => result.map_err(|error| raise(py, &error)),
            Err(_) => Err(PyRuntimeError::new_err("the thread that watched files has panicked")),
        }
    }
}

/// The program, for `redgrease.cli`.
#[pyclass(frozen)]
pub struct LoaderProgram {
    settings: Settings,
    paths: Vec<PathBuf>,
}

#[pymethods]
impl LoaderProgram {
    /// Parses a command line, whose first word is the name of the program. Raises `SystemExit` for `--help`, and for
    /// options that are wrong.
    #[new]
    fn new(py: Python<'_>, words: Vec<OsString>) -> PyResult<Self> {
        let command = Arguments::augment_args(clap::Command::new("redgrease").max_term_width(100));
        let matches = command.try_get_matches_from(join_delays(words));
        let arguments = matches.and_then(|matches| Arguments::from_arg_matches(&matches));
        let arguments = arguments.or_else(|error| {
            let stream = if error.use_stderr() { "stderr" } else { "stdout" };
            py.import("sys")?.getattr(stream)?.call_method1("write", (error.render().to_string(),))?;
            Err(PySystemExit::new_err(error.exit_code()))
        })?;
        let directory = std::env::current_dir()?;
        let variable = |name: &str| std::env::var(name).ok();
        let settings = Settings::resolve(arguments.layer(), variable, &default_config_files(&directory));
        Ok(Self { settings: settings.map_err(|error| raise(py, &error))?, paths: arguments.paths })
    }

    #[getter]
    fn log_config(&self) -> Option<PathBuf> {
        self.settings.log_config.clone()
    }

    #[getter]
    fn log_level(&self) -> &'static str {
        self.settings.log_level.name()
    }

    #[getter]
    fn log_format(&self) -> &'static str {
        match self.settings.log_format {
            LogFormat::Text => "text",
            LogFormat::Tabs => "tabs",
            LogFormat::Json => "json",
        }
    }

    /// Loads, and watches until a signal handler raises. Returns the exit code.
    fn run(&self, py: Python<'_>, log: Py<PyAny>) -> PyResult<u8> {
        let (settings, paths, log) = (self.settings.clone(), self.paths.clone(), log_to(log));
        let (watching, control) = sync_channel(1);
        let (ended, end) = sync_channel(1);
        let end = Mutex::new(end);
        let body = move || {
            let code = program::run(settings, &paths, log, |control| {
                let _is_first = watching.try_send(control);
            });
            let _nobody_waits = ended.try_send(code);
        };
        let thread = std::thread::Builder::new().name("redgrease-loader".to_owned()).spawn(body);
        thread.map_err(|error| PyRuntimeError::new_err(error.to_string()))?;
        // Set when a signal ends a watch.
        let mut deadline: Option<Instant> = None;
        loop {
            match py.detach(|| lock(&end).recv_timeout(LOOK_EVERY)) {
                Ok(code) => return code.map_err(|error| raise(py, &error)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(PyRuntimeError::new_err("the thread that loads files has panicked"));
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                return Ok(Class::Failed.exit_code());
            }
            if let Err(signal) = py.check_signals() {
                let Ok(control) = control.try_recv() else { return Err(signal) };
                control.stop();
                deadline = Some(Instant::now() + GRACE);
            }
        }
    }
}

/// Adds the loader to the module.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<LoaderCore>()?;
    module.add_class::<LoaderProgram>()
}
