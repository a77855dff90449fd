//! Plans: a reader, steps and how they are run; plain data.
//!
//! # Layout
//! - [`step`], [`reader`], [`trigger`], [`mode`]: what a plan is made of; the names that users give are listed there and
//!   nowhere else;
//! - [`range`]: the numbers that users give;
//! - [`spec`]: a whole plan, as the Python builder describes it;
//! - [`mod@primitives`]: the steps that clients of RedisGears know;
//! - [`lower`], [`native`]: what is executed: rows of operators, and the steps at the front that need no user code.

pub mod error;
pub mod lower;
pub mod mode;
mod named;
pub mod native;
pub mod primitives;
pub mod range;
pub mod reader;
pub mod spec;
pub mod step;
pub mod trigger;

pub use error::PlanError;
pub use lower::{Arg, Exchange, Lowered, Op, Partial, Segment, StepOp};
pub use mode::Mode;
pub use native::NativeRun;
pub use primitives::{Primitive, primitives};
pub use range::{BATCH, DURATION, LIMIT, NUMBER_RANGES, NumberRange, RETRY_INTERVAL, SCAN_COUNT};
pub use reader::{ReaderKind, RunReader};
pub use spec::PlanSpec;
pub use step::{Step, StepKind};
pub use trigger::{FailurePolicy, Trigger};
