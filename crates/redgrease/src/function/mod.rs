//! Gear functions that are built in Rust: a reader and steps.

mod callbacks;
mod code;
mod constant;
mod reader;
mod start;
mod step;

use redgrease_core::codec::Value;
use redgrease_core::plan::StepKind;
use serde::de::DeserializeOwned;

#[cfg(feature = "aio")]
use crate::commands::AsyncGearsCommands;
use crate::commands::GearsCommands;
#[cfg(feature = "aio")]
use crate::connection::AsyncGearsConnection;
use crate::connection::GearsConnection;
use crate::error::{Error, Result};
use crate::execute::{self, PyExecute};
use crate::id::ExecutionId;
use crate::record::{Executed, Results};

pub use code::PyCode;
pub use constant::Constant;
pub use reader::{
    CommandReader, KeysOnlyReader, KeysReader, OnFailure, PythonReader, Reader, Registers, Runs, ShardsIdReader,
    StreamReader,
};
use step::{Part, Step};

/// Where executions of a function run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Mode {
    /// On all shards of a cluster.
    #[default]
    Async,
    /// On the shard that gets the function, or the event.
    AsyncLocal,
    /// There, before the client that caused the event gets its reply; for registrations.
    Sync,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Async => "async",
            Mode::AsyncLocal => "async_local",
            Mode::Sync => "sync",
        }
    }
}

/// The text that is sent with a function. A server without the module shows the first 128 bytes of arguments in its error, which
/// must be text, and not the encoded plan behind it.
const HEADER: &str = "# redgrease function, built by the client for Rust: its plan, and the Python code of its steps, are the \
                      arguments that follow this text";

/// A gear function: a reader and the steps after it. Readers begin it, such as [`KeysReader::pattern`].
///
/// Steps that need no code, and constants, are typed in Rust. User code is Python: [`py!`](crate::py). Nothing happens until
/// the function is run or registered.
///
/// ```no_run
/// use redgrease::{Client, KeysReader, py};
///
/// # fn main() -> redgrease::Result<()> {
/// let mut client = Client::connect("redis://localhost:6379")?;
/// let countries: Vec<(String, u64)> = KeysReader::pattern("user:*")
///     .values()
///     .count_by(py!("lambda user: user['country']"))
///     .map(py!("lambda found: (found['key'], found['value'])"))
///     .run(&mut client)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct GearFunction<R> {
    reader: R,
    steps: Vec<Step>,
    mode: Mode,
    description: Option<String>,
    session: Option<String>,
    requirements: Vec<String>,
    on_registered: Option<PyCode>,
}

impl<R: Reader> GearFunction<R> {
    fn of(reader: R) -> GearFunction<R> {
        GearFunction {
            reader,
            steps: Vec::new(),
            mode: Mode::default(),
            description: None,
            session: None,
            requirements: Vec::new(),
            on_registered: None,
        }
    }

    fn step(mut self, step: Step) -> GearFunction<R> {
        self.steps.push(step);
        self
    }

    fn native(self, kind: StepKind) -> GearFunction<R> {
        self.step(Step::native(kind))
    }

    fn code<const N: usize>(self, kind: StepKind, code: [PyCode; N]) -> GearFunction<R> {
        self.step(Step::new(kind, code.map(Part::Code)))
    }

    /// Replaces each record by `f(record)`.
    #[must_use]
    pub fn map(self, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::Map, [f])
    }

    /// Keeps the records for which `f(record)` is true.
    #[must_use]
    pub fn filter(self, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::Filter, [f])
    }

    /// Calls `f(record)` and passes the record on.
    #[must_use]
    pub fn for_each(self, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::ForEach, [f])
    }

    /// Replaces each record by the items of the list `f(record)`, in their order.
    #[must_use]
    pub fn flat_map(self, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::FlatMap { in_order: true }, [f])
    }

    /// Reduces the records of a shard with `f(accumulator, record)`, beginning with `None`.
    #[must_use]
    pub fn accumulate(self, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::Accumulate, [f])
    }

    /// Reduces the records of a shard by key: `extractor(record)`, `f(key, accumulator, record)`.
    #[must_use]
    pub fn local_group_by(self, extractor: PyCode, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::LocalGroupBy, [extractor, f])
    }

    /// Reduces the records of all shards by key: `extractor(record)`, `f(key, accumulator, record)`.
    #[must_use]
    pub fn group_by(self, extractor: PyCode, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::GroupBy, [extractor, f])
    }

    /// Reduces all records of a key at once: `extractor(record)`, `f(key, records)`.
    #[must_use]
    pub fn batch_group_by(self, extractor: PyCode, f: PyCode) -> GearFunction<R> {
        self.code(StepKind::BatchGroupBy, [extractor, f])
    }

    /// Moves each record to the shard of the key `extractor(record)`.
    #[must_use]
    pub fn repartition(self, extractor: PyCode) -> GearFunction<R> {
        self.code(StepKind::Repartition, [extractor])
    }

    /// Moves all records to the shard where the execution began; runs end with it in any case.
    #[must_use]
    pub fn collect(self) -> GearFunction<R> {
        self.native(StepKind::Collect)
    }

    /// Lets that many records of each shard pass.
    #[must_use]
    pub fn limit(self, length: u64) -> GearFunction<R> {
        self.slice(0, length)
    }

    /// Lets that many records of each shard pass, after the first `offset`.
    #[must_use]
    pub fn slice(self, offset: u64, length: u64) -> GearFunction<R> {
        self.native(StepKind::Limit { length, offset })
    }

    /// Reduces all records: `each(acc, record)` on each shard, then `combine(acc, partial)`; both begin with `zero`.
    #[must_use]
    pub fn aggregate(self, zero: impl Into<Constant>, each: PyCode, combine: PyCode) -> GearFunction<R> {
        let parts = [Part::Constant(zero.into()), Part::Code(each), Part::Code(combine)];
        self.step(Step::new(StepKind::Aggregate, parts))
    }

    /// Reduces by key: `extractor(record)`, then `each(key, acc, record)` on each shard and `combine(key, acc, partial)`; both
    /// begin with `zero`. Results are dicts of `key` and `value`: see [`Keyed`](crate::Keyed).
    #[must_use]
    pub fn aggregate_by(
        self,
        extractor: PyCode,
        zero: impl Into<Constant>,
        each: PyCode,
        combine: PyCode,
    ) -> GearFunction<R> {
        let parts = [Part::Code(extractor), Part::Constant(zero.into()), Part::Code(each), Part::Code(combine)];
        self.step(Step::new(StepKind::AggregateBy, parts))
    }

    /// Counts the records. Without a record there is no result: run it as `Option<u64>` where that happens.
    #[must_use]
    pub fn count(self) -> GearFunction<R> {
        self.native(StepKind::Count)
    }

    /// Counts the records of each key `extractor(record)`. Results are dicts of `key` and `value`: see
    /// [`Keyed`](crate::Keyed).
    #[must_use]
    pub fn count_by(self, extractor: PyCode) -> GearFunction<R> {
        self.code(StepKind::CountBy { extractor: true }, [extractor])
    }

    /// Counts equal records. Results are dicts of `key` and `value`: see [`Keyed`](crate::Keyed).
    #[must_use]
    pub fn count_equal(self) -> GearFunction<R> {
        self.native(StepKind::CountBy { extractor: false })
    }

    /// The mean of the records, which are numbers or texts of numbers.
    #[must_use]
    pub fn mean(self) -> GearFunction<R> {
        self.native(StepKind::Avg { extractor: false })
    }

    /// The mean of the numbers `extractor(record)`.
    #[must_use]
    pub fn mean_by(self, extractor: PyCode) -> GearFunction<R> {
        self.code(StepKind::Avg { extractor: true }, [extractor])
    }

    /// Sorts all records, the smallest one first.
    #[must_use]
    pub fn sort(self) -> GearFunction<R> {
        self.native(StepKind::Sort { reverse: true })
    }

    /// Sorts all records, the largest one first.
    #[must_use]
    pub fn sort_descending(self) -> GearFunction<R> {
        self.native(StepKind::Sort { reverse: false })
    }

    /// Keeps each distinct record once.
    #[must_use]
    pub fn distinct(self) -> GearFunction<R> {
        self.native(StepKind::Distinct)
    }

    /// Where executions run.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> GearFunction<R> {
        self.mode = mode;
        self
    }

    /// A text that lists of registrations show.
    #[must_use]
    pub fn description(mut self, text: impl Into<String>) -> GearFunction<R> {
        self.description = Some(text.into());
        self
    }

    /// Packages that the Python code needs, as pip names them.
    #[must_use]
    pub fn requirements(mut self, requirements: impl IntoIterator<Item = impl Into<String>>) -> GearFunction<R> {
        self.requirements.extend(requirements.into_iter().map(Into::into));
        self
    }

    /// The request that checks the Python code: see [`GearFunction::check`].
    ///
    /// # Errors
    /// [`Error::Argument`]: code or a name cannot be sent.
    pub fn check_request(&self) -> Result<PyExecute> {
        let content = self.content(None)?;
        Ok(PyExecute::script(callbacks::check_script(&content)).requirements(self.requirements.iter().cloned()))
    }

    /// Has the server check the Python code: its syntax, that it is a function, and that modules can be imported. Running and
    /// registering check this, too.
    ///
    /// # Errors
    /// [`Error::Server`] names the step and what is wrong.
    pub fn check(&self, connection: &mut impl GearsConnection) -> Result<()> {
        connection.rg_py_execute(self.check_request()?).map(|_| ())
    }

    /// Has the server check the Python code, for connections of tokio, as [`check`](Self::check).
    ///
    /// # Errors
    /// As [`check`](Self::check).
    #[cfg(feature = "aio")]
    pub async fn check_async(&self, connection: &mut impl AsyncGearsConnection) -> Result<()> {
        connection.rg_py_execute(self.check_request()?).await.map(|_| ())
    }

    fn content(&self, source: Option<PyCode>) -> Result<Vec<u8>> {
        let encoded = |code: Option<&PyCode>| code.map_or(Ok(Value::None), PyCode::encoded);
        let steps = self.all_steps().map(|step| step.in_worker()).collect::<Result<_>>()?;
        Ok(callbacks::content(steps, encoded(source.as_ref())?, encoded(self.on_registered.as_ref())?))
    }

    /// The steps, and the collecting one at the end.
    fn all_steps(&self) -> impl Iterator<Item = Step> {
        self.steps.iter().cloned().chain([Step::native(StepKind::Collect)])
    }

    fn request(&self, action: &'static str, arguments: Value, source: Option<PyCode>) -> Result<PyExecute> {
        let fields = [
            ("reader", Value::text(R::KIND.name())),
            ("desc", self.description.as_deref().map_or(Value::None, Value::text)),
            ("mode", Value::text(self.mode.name())),
            ("reply", Value::text("plain")),
            ("args", arguments),
            ("steps", Value::List(self.all_steps().map(|step| step.in_plan()).collect())),
        ];
        let plan = Value::Dict(fields.into_iter().map(|(name, value)| (Value::text(name), value)).collect()).encode();
        let callbacks = callbacks::pickle(&self.content(source)?);
        let header = format!("{HEADER}, package {}", env!("CARGO_PKG_VERSION"));
        Ok(PyExecute::function(header, execute::Function { action, plan, callbacks })
            .requirements(self.requirements.iter().cloned()))
    }
}

impl<R: Runs> GearFunction<R> {
    /// The request that runs the function.
    ///
    /// # Errors
    /// [`Error::Argument`]: code or a name cannot be sent.
    pub fn run_request(&self) -> Result<PyExecute> {
        self.request("RUN", self.reader.run_arguments(), self.reader.source())
    }

    /// Runs the function to its end, and reads its results: a `Vec` gets all of them, any other type the only one, and an
    /// `Option` is `None` without results.
    ///
    /// # Errors
    /// [`Error::Execution`]: a record failed. [`Error::Decode`]: a result does not fit. Otherwise those of the commands.
    pub fn run<T: DeserializeOwned>(&self, connection: &mut impl GearsConnection) -> Result<T> {
        self.results(connection)?.get()
    }

    /// Runs the function, for connections of tokio, as [`run`](Self::run).
    ///
    /// # Errors
    /// As [`run`](Self::run).
    #[cfg(feature = "aio")]
    pub async fn run_async<T: DeserializeOwned>(&self, connection: &mut impl AsyncGearsConnection) -> Result<T> {
        self.results_async(connection).await?.get()
    }

    /// Runs the function to its end: its results, and the errors of the records that failed.
    ///
    /// # Errors
    /// Those of the commands.
    pub fn results(&self, connection: &mut impl GearsConnection) -> Result<Results> {
        connection.rg_py_execute(self.run_request()?).map(Executed::into_results)
    }

    /// Runs the function, for connections of tokio, as [`results`](Self::results).
    ///
    /// # Errors
    /// As [`results`](Self::results).
    #[cfg(feature = "aio")]
    pub async fn results_async(&self, connection: &mut impl AsyncGearsConnection) -> Result<Results> {
        connection.rg_py_execute(self.run_request()?).await.map(Executed::into_results)
    }

    /// Starts the function, and does not wait for its end.
    ///
    /// # Errors
    /// Those of the commands.
    pub fn start(&self, connection: &mut impl GearsConnection) -> Result<ExecutionId> {
        started(connection.rg_py_execute(self.run_request()?.unblocking())?)
    }

    /// Starts the function, for connections of tokio, as [`start`](Self::start).
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(feature = "aio")]
    pub async fn start_async(&self, connection: &mut impl AsyncGearsConnection) -> Result<ExecutionId> {
        started(connection.rg_py_execute(self.run_request()?.unblocking()).await?)
    }
}

impl<R: Registers> GearFunction<R> {
    /// Of a registration: the id of its session, of letters, digits, `-` and `_`. A function that is registered again with
    /// the same id takes the place of the former one.
    #[must_use]
    pub fn session(mut self, id: impl Into<String>) -> GearFunction<R> {
        self.session = Some(id.into());
        self
    }

    /// Python code, a function without parameters, that runs where the function has been registered.
    #[must_use]
    pub fn on_registered(mut self, f: PyCode) -> GearFunction<R> {
        self.on_registered = Some(f);
        self
    }

    /// The request that registers the function.
    ///
    /// # Errors
    /// [`Error::Argument`]: code or a name cannot be sent, or the function would never run.
    pub fn register_request(&self) -> Result<PyExecute> {
        let request = self.request("REGISTER", self.reader.register_arguments()?, None)?;
        Ok(match &self.session {
            Some(id) => request.id(id).upgrade(),
            None => request,
        })
    }

    /// Registers the function: it runs for each event.
    ///
    /// # Errors
    /// [`Error::Server`]: the server refuses it. Otherwise those of the commands.
    pub fn register(&self, connection: &mut impl GearsConnection) -> Result<()> {
        connection.rg_py_execute(self.register_request()?).map(|_| ())
    }

    /// Registers the function, for connections of tokio, as [`register`](Self::register).
    ///
    /// # Errors
    /// As [`register`](Self::register).
    #[cfg(feature = "aio")]
    pub async fn register_async(&self, connection: &mut impl AsyncGearsConnection) -> Result<()> {
        connection.rg_py_execute(self.register_request()?).await.map(|_| ())
    }
}

fn started(executed: Executed) -> Result<ExecutionId> {
    match executed {
        Executed::Started(id) => Ok(id),
        other => Err(Error::reply("RG.PYEXECUTE", format!("expected the id of an execution, got {other:?}"))),
    }
}
