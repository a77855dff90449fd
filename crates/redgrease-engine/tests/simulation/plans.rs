//! What simulated scripts and functions do: little programs, and the plans that workers send for functions.
//!
//! Programs that write and trigger cannot run forever: what a function writes has a higher level (the digit in the
//! names of keys and streams) than what it was started with, and a function triggers only functions with higher names.

use std::collections::BTreeMap;

use redgrease_core::codec::Value;

use crate::random::Random;

/// The highest level that is written; functions that are started with it write nothing.
pub const LEVEL_MAX: u64 = 2;

/// Number of names of triggers.
pub const NAMES: u64 = 6;

/// A key that some users may not use.
pub const FORBIDDEN: &str = "no";

/// Number of a function.
pub type FunctionNo = usize;

/// Something that a script or function does.
#[derive(Debug, Clone)]
pub enum Op {
    /// Computes for some milliseconds.
    Sleep(u64),
    /// Runs a command of the server.
    Execute(Command),
    /// Enters an atomic block.
    Enter,
    /// Leaves it.
    Exit,
    /// Runs a function.
    Run(FunctionNo),
    /// Registers a function so many times.
    Register(FunctionNo, u64),
    /// Asks for a configuration key.
    ConfigGet,
    /// Asks for a text that hashes to this shard.
    HashTag,
    /// Writes so many bytes to the server's log.
    Log(u64),
    /// Writes so many bytes to its output.
    Print(u64),
    /// Sends results of so many bytes.
    Output(u64),
    /// Says in which step it is.
    Progress,
    /// Needs no further records.
    Stop,
    /// Ends with an error.
    Fail(&'static str),
    /// Something that well-behaved code does not do.
    Misfortune(Misfortune),
}

/// A command that a function runs.
#[derive(Debug, Clone)]
pub enum Command {
    /// Reads a key.
    Get,
    /// Writes a key.
    Set,
    /// Deletes a key.
    Del,
    /// Adds an entry to a stream.
    Add,
    /// Triggers the function of that name.
    Trigger(u64),
    /// Takes a registration out.
    Unregister,
    /// Aborts an execution, which a function cannot wait for.
    Abort,
    /// Lists registrations.
    Dump,
    /// Runs a script, which a function cannot.
    PyExecute,
    /// Pauses clients for so many milliseconds.
    Pause(u64),
    /// Does not exist.
    Unknown,
    /// Belongs to another module.
    Foreign,
    /// Is refused by policy.
    Forbidden,
}

/// What goes wrong in a worker.
#[derive(Debug, Clone, Copy)]
pub enum Misfortune {
    /// The code does not end by itself.
    Hang,
    /// The process ends.
    Crash,
    /// The connection is closed first.
    CloseAndCrash,
    /// The connection is closed, the process lives on.
    Close,
    /// The process is stopped by a signal.
    Stopped,
    /// Many frames are sent.
    Flood,
    /// Bytes are sent that are no frames.
    Garbage,
    /// Frames are sent that name what lives in other workers, or nowhere.
    Foreign,
    /// A frame is begun and not finished.
    Unfinished,
    /// Nothing is read any more.
    Unread,
    /// The code ends without waiting for the answer to its call.
    EndWithoutAnswer,
    /// The code ends, and the process right after it.
    EndAndCrash,
    /// A handshake, or a frame that only scripts send.
    WrongFrame,
}

/// A function.
#[derive(Debug, Clone)]
pub struct Function {
    /// Its plan, encoded.
    pub spec: Vec<u8>,
    /// What it does.
    pub ops: Vec<Op>,
    /// Name of its trigger.
    pub name: Option<u64>,
    /// It is run by the rule that executions start in the order in which they were asked for.
    pub in_order: bool,
    /// The main thread waits for it.
    pub sync: bool,
    /// It is registered, not run.
    pub is_registered: bool,
}

/// All scripts and functions of a run.
#[derive(Debug, Default)]
pub struct Programs {
    /// Scripts; their source is their number.
    pub scripts: Vec<Vec<Op>>,
    /// Functions.
    pub functions: Vec<Function>,
    /// The Python version that functions need, if they hold compiled code.
    pub compiled: BTreeMap<usize, &'static str>,
}

/// How much goes wrong, and how much of what there is: drawn once per run.
#[derive(Debug, Clone)]
pub struct Taste {
    /// Misfortunes, in percent of operations.
    pub misfortunes: u64,
    /// Failures, in percent of operations.
    pub failures: u64,
    /// Sync functions, in percent.
    pub sync: u64,
    /// Long computations, in percent of computations.
    pub long: u64,
    /// Atomic blocks, in percent of functions.
    pub atomic: u64,
    /// Large values, in percent.
    pub large: u64,
    /// Panics of the driver, in a thousand commands of functions.
    pub panics: u64,
}

impl Taste {
    /// Draws one.
    pub fn draw(random: &mut Random) -> Taste {
        Taste {
            misfortunes: random.pick(&[0, 0, 1, 3, 8]),
            failures: random.pick(&[0, 3, 10]),
            sync: random.pick(&[0, 25, 50, 80]),
            long: random.pick(&[0, 2, 10]),
            atomic: random.pick(&[0, 10, 30]),
            large: random.pick(&[0, 0, 10, 40]),
            panics: random.pick(&[0, 0, 0, 60]),
        }
    }
}

fn text(value: &str) -> Value {
    Value::text(value)
}

fn spec(reader: &str, mode: &str, steps: &[&str], args: Vec<(&str, Value)>) -> Vec<u8> {
    let steps = steps.iter().map(|kind| Value::List(vec![text(kind)])).collect();
    let args = args.into_iter().map(|(name, value)| (text(name), value)).collect();
    Value::Dict(vec![
        (text("reader"), text(reader)),
        (text("desc"), Value::None),
        (text("mode"), text(mode)),
        (text("reply"), text("plain")),
        (text("steps"), Value::List(steps)),
        (text("args"), Value::Dict(args)),
    ])
    .encode()
}

impl Programs {
    /// Makes a script; returns its source.
    pub fn script(&mut self, random: &mut Random, taste: &Taste) -> Vec<u8> {
        let mut ops = self.body(random, taste, None, 2);
        let registrations = match random.below(100) {
            0..45 => random.between(1, 4),
            _ => 0,
        };
        for _ in 0..registrations {
            let function = self.registered(random, taste);
            ops.push(Op::Register(function, 1));
        }
        if registrations > 0 && random.chance(2) {
            let function = self.quiet();
            ops.push(Op::Register(function, 140));
        }
        if registrations == 0 || random.chance(15) {
            let function = self.run(random, taste);
            ops.push(Op::Run(function));
            if random.chance(10) {
                ops.push(Op::Run(function));
            }
        }
        self.scripts.push(ops);
        (self.scripts.len() - 1).to_string().into_bytes()
    }

    /// The script with that source.
    pub fn of_source(&self, source: &[u8]) -> &[Op] {
        let number: usize = std::str::from_utf8(source).ok().and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
        self.scripts.get(number).map(Vec::as_slice).unwrap_or_default()
    }

    fn add(&mut self, function: Function) -> FunctionNo {
        self.functions.push(function);
        self.functions.len() - 1
    }

    /// A function of an event that never fires: there may be many of them.
    fn quiet(&mut self) -> FunctionNo {
        let spec = keys_registration("quiet", "async_local", None);
        self.add(Function { spec, ops: Vec::new(), name: None, in_order: true, sync: false, is_registered: true })
    }

    /// A function to be registered.
    pub fn registered(&mut self, random: &mut Random, taste: &Taste) -> FunctionNo {
        let sync = random.chance(taste.sync);
        let mode = if sync { "sync" } else { random.pick(&["async_local", "async_local", "async"]) };
        let (spec, name, in_order) = match random.below(10) {
            0..4 => {
                let prefix = random.pick(&["k*", "k0*", "k1*", "*", "k0:7", "k9no"]);
                let events = random.pick(&[None, Some("set"), Some("del"), Some("expired"), Some("evil")]);
                (keys_registration(prefix, mode, events), None, true)
            }
            4..7 => {
                let prefix = random.pick(&["s*", "s0:a", "s0*", "s1*", "s0:no"]);
                let policy = random.pick(&["continue", "continue", "continue", "retry", "abort"]);
                let args = vec![
                    ("prefix", text(prefix)),
                    ("batch", Value::Int(random.pick(&[1, 1, 2, 3, 200, 1000]))),
                    ("duration", Value::Int(random.pick(&[0, 0, 20, 200]))),
                    ("onFailedPolicy", text(policy)),
                    ("onFailedRetryInterval", Value::Int(random.pick(&[0, 1]))),
                    ("trimStream", Value::Bool(random.chance(50))),
                ];
                (spec("StreamReader", mode, &["foreach"], args), None, true)
            }
            _ => {
                let (name, in_order) = (random.below(NAMES), random.chance(50));
                let args = vec![
                    ("trigger", text(&format!("t{name}"))),
                    ("inorder", Value::Bool(in_order)),
                    ("hook", Value::None),
                    ("keyprefix", Value::None),
                ];
                (spec("CommandReader", mode, &["map"], args), Some(name), in_order)
            }
        };
        let ops = self.body(random, taste, name, 3);
        self.add(Function { spec, ops, name, in_order, sync, is_registered: true })
    }

    /// A function to be run.
    pub fn run(&mut self, random: &mut Random, taste: &Taste) -> FunctionNo {
        let mode = random.pick(&["async_local", "async"]);
        let read_value = random.chance(80);
        let keys = |pattern: &str, no_scan| {
            vec![("pattern", text(pattern)), ("noScan", Value::Bool(no_scan)), ("readValue", Value::Bool(read_value))]
        };
        let entries =
            |key: &str, pattern| vec![("key", text(key)), ("fromId", text("0-0")), ("pattern", Value::Bool(pattern))];
        let spec = match random.below(13) {
            0..4 => spec("KeysReader", mode, &["map", "filter"], keys("*", false)),
            10 => spec("StreamReader", mode, &["map"], entries("s*", true)),
            11 => spec("KeysReader", mode, &["count", "map"], keys("k1*", false)),
            12 => {
                let args = vec![("pattern", text("k*")), ("noScan", Value::Bool(false)), ("count", Value::Int(10))];
                spec("KeysOnlyReader", mode, &["map"], args)
            }
            4 => spec("KeysReader", mode, &["count"], keys("*", false)),
            5 => spec("KeysReader", mode, &["count", "collect", "tostr"], keys("k0*", false)),
            6 => spec("KeysReader", mode, &["map"], keys("k0:1", true)),
            7 => spec("StreamReader", mode, &["map"], entries("s0:a", false)),
            8 => spec("CommandReader", mode, &[], Vec::new()),
            _ => spec("PythonReader", mode, &["map"], Vec::new()),
        };
        let ops = self.body(random, taste, None, 3);
        self.add(Function { spec, ops, name: None, in_order: false, sync: false, is_registered: false })
    }

    /// Operations; those of a function with a name trigger only higher names.
    fn body(&mut self, random: &mut Random, taste: &Taste, name: Option<u64>, most: u64) -> Vec<Op> {
        let mut ops = Vec::new();
        for _ in 0..random.between(0, most) {
            let op = self.op(random, taste, name);
            // Once, so that the number of nested ones does not grow.
            let itself = |op: &Op| matches!(op, Op::Execute(Command::Trigger(other)) if Some(*other) == name);
            if !itself(&op) || !ops.iter().any(itself) {
                ops.push(op);
            }
        }
        if random.chance(taste.atomic) {
            let at = random.between(0, ops.len() as u64) as usize;
            ops.insert(at, Op::Enter);
            ops.push(Op::Exit);
        }
        ops
    }

    fn op(&mut self, random: &mut Random, taste: &Taste, name: Option<u64>) -> Op {
        if random.chance(taste.misfortunes) {
            return Op::Misfortune(random.pick(&[
                Misfortune::Hang,
                Misfortune::Crash,
                Misfortune::Crash,
                Misfortune::CloseAndCrash,
                Misfortune::Close,
                Misfortune::Stopped,
                Misfortune::Flood,
                Misfortune::Garbage,
                Misfortune::Foreign,
                Misfortune::Unfinished,
                Misfortune::Unread,
                Misfortune::EndWithoutAnswer,
                Misfortune::EndAndCrash,
                Misfortune::EndAndCrash,
                Misfortune::WrongFrame,
            ]));
        }
        if random.chance(taste.failures) {
            return Op::Fail(random.pick(&["ERR failed", "PAUSE for a while", "ValueError"]));
        }
        match random.below(20) {
            0..4 => Op::Sleep(match random.chance(taste.long) {
                true => random.between(100, 1500),
                false => random.between(0, 12),
            }),
            4..14 => Op::Execute(self.command(random, name)),
            14 => Op::Log(random.between(1, 80)),
            15 => Op::Print(random.between(1, 80)),
            16 => Op::Output(random.between(1, 40)),
            17 => Op::Progress,
            18 => match random.below(4) {
                0 => Op::ConfigGet,
                1 => Op::HashTag,
                2 => Op::Stop,
                _ => Op::Progress,
            },
            _ if random.chance(40) => {
                let function = self.shallow(random);
                Op::Run(function)
            }
            _ => {
                let function = self.quiet();
                Op::Register(function, 1)
            }
        }
    }

    /// A function that functions run.
    fn shallow(&mut self, random: &mut Random) -> FunctionNo {
        let spec = spec("PythonReader", "async_local", &["map"], Vec::new());
        let ops = vec![Op::Sleep(random.below(5))];
        self.add(Function { spec, ops, name: None, in_order: false, sync: false, is_registered: false })
    }

    fn command(&mut self, random: &mut Random, name: Option<u64>) -> Command {
        match random.below(30) {
            0..4 => Command::Get,
            4..12 => Command::Set,
            12 => Command::Del,
            13..17 => Command::Add,
            17..24 => {
                // Rarely itself: sync executions are nested until that is refused.
                let least = name.map_or(0, |name| if random.chance(2) { name } else { name + 1 });
                if least < NAMES { Command::Trigger(random.between(least, NAMES - 1)) } else { Command::Get }
            }
            24 => Command::Unregister,
            25 if random.chance(50) => Command::Abort,
            25 => Command::Dump,
            26 => Command::PyExecute,
            27 => Command::Pause(random.between(1, 60)),
            28 => Command::Unknown,
            _ if random.chance(50) => Command::Foreign,
            _ => Command::Forbidden,
        }
    }
}

fn keys_registration(prefix: &str, mode: &str, event: Option<&str>) -> Vec<u8> {
    let names = |name: Option<&str>| name.map_or(Value::None, |name| Value::List(vec![text(name)]));
    let types = if prefix == "k1*" { names(Some("string")) } else { Value::None };
    let args = vec![
        ("prefix", text(prefix)),
        ("eventTypes", names(event)),
        ("keyTypes", types),
        ("readValue", Value::Bool(prefix != "k0*")),
        ("commands", Value::None),
        ("unknownEvents", Value::Bool(false)),
    ];
    spec("KeysReader", mode, &["foreach"], args)
}
