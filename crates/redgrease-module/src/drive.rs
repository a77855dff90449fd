//! The loop around the engine: handles an input and performs the resulting effects.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use redgrease_engine::{Effect, Input};

use crate::driver::Driver;
use crate::effects;

/// Passes an input to the engine, and performs its effects in order. An input that an effect causes at once
/// is handled, and its effects are performed, before the next effect.
///
/// A panic is passed on when everything else is done: effects for other clients and workers must not be lost. The
/// engine then drops the waits and calls that were begun since.
pub fn drive(driver: &Driver, input: Input<'_>) {
    let depth = driver.ask(|engine| engine.depth());
    let mut drive = Drive { driver, effects: driver.spare_effects.take(), panic: None };
    drive.handle(input);
    drive.perform_all();
    driver.spare_effects.set(std::mem::take(&mut drive.effects));
    let Some(panic) = drive.panic.take() else { return };
    drive.collect(|effects| driver.change(|engine| engine.unwind(depth, effects)));
    drive.perform_all();
    resume_unwind(panic);
}

type Panic = Box<dyn Any + Send>;

struct Drive<'a> {
    driver: &'a Driver,
    /// Effects to be performed, the next one last.
    effects: Vec<Effect>,
    /// The first panic.
    panic: Option<Panic>,
}

impl Drive<'_> {
    fn handle(&mut self, input: Input<'_>) {
        let driver = self.driver;
        let situation = driver.situation();
        self.collect(|effects| driver.change(|engine| engine.handle(&situation, input, effects)));
    }

    /// Puts the effects that `add` appends before those that are there.
    fn collect(&mut self, add: impl FnOnce(&mut Vec<Effect>)) {
        let before = self.effects.len();
        let added = catch_unwind(AssertUnwindSafe(|| add(&mut self.effects)));
        self.effects[before..].reverse();
        self.note(added);
    }

    fn perform_all(&mut self) {
        while let Some(effect) = self.effects.pop() {
            let driver = self.driver;
            let follows = catch_unwind(AssertUnwindSafe(|| effects::perform(driver, effect)));
            if let Some(input) = self.note(follows).flatten() {
                self.handle(input);
            }
        }
    }

    fn note<T>(&mut self, result: Result<T, Panic>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(panic) => {
                self.panic.get_or_insert(panic);
                None
            }
        }
    }
}
