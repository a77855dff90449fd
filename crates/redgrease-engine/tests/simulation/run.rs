//! One run: a time in which anything may happen, then a time in which everything has to come to an end.

use redgrease_core::id::Database;
use redgrease_engine::Input;
use redgrease_engine::audit::{Audit, AuditedRegistration};
use redgrease_engine::input::Inside;

use crate::invariants::violated;
use crate::plans::{FORBIDDEN, Misfortune};
use crate::random::Random;
use crate::server::DATABASES;
use crate::world::{Sender, World};

/// Rounds in which everything has to come to an end.
const CALM_ROUNDS_MAX: u64 = 400_000;

/// Times at which timers fire in one step, however long that is.
const TIMERS_PER_STEP_MAX: u64 = 500;

/// How often what happens: drawn once per run.
struct Weights {
    steps: u64,
    choices: [u64; 14],
}

impl Weights {
    fn draw(random: &mut Random) -> Weights {
        let rare = |random: &mut Random| random.pick(&[0, 0, 1, 3]);
        let choices = [
            random.pick(&[20, 40, 60]),
            20,
            random.pick(&[20, 40]),
            random.pick(&[10, 20]),
            rare(random),
            rare(random),
            rare(random),
            rare(random),
            rare(random),
            rare(random),
            rare(random),
            rare(random),
            1,
            40,
        ];
        Weights { steps: random.pick(&[300, 600, 1200]), choices }
    }
}

/// Runs a world to its end.
pub fn run(world: &mut World) {
    world.hand_in(Input::Started);
    let weights = Weights::draw(&mut world.random);
    for _ in 0..weights.steps {
        world.step += 1;
        end_states(world);
        match world.random.weighed(&weights.choices) {
            0 => client_command(world),
            1 => {
                if let Some(worker) = world.some_worker() {
                    world.let_go_on(worker);
                }
            }
            2 => {
                world.turn();
            }
            3 => time_goes_on(world),
            4 => pause(world),
            5 => script(world),
            6 => role_changes(world),
            7 => load(world),
            8 => swap(world),
            9 => misfortune(world),
            10 => expire(world),
            11 => {
                let choice = world.random.next();
                world.clients.leave(choice);
            }
            12 => {
                world.audit();
            }
            _ => everyone_goes_on(world),
        }
        if world.step.is_multiple_of(16) {
            world.audit();
        }
    }
    calm_down(world);
    let audit = come_to_rest(world);
    check_end(world, &audit);
    unregister_all(world, &audit);
    let audit = come_to_rest(world);
    if audit.sessions != [0, 0] || !audit.registrations.is_empty() {
        let text = format!("{:?} sessions, {} registrations", audit.sessions, audit.registrations.len());
        violated("without registrations there are no sessions", text);
    }
    if let Some(worker) = world.workers.values().find(|worker| !worker.unanswered().is_empty()) {
        violated("each call is answered", format!("{:?} of {}", worker.unanswered(), worker.summary()));
    }
    world.hand_in(Input::Shutdown);
    if let Some(worker) = world.workers.values().find(|worker| !worker.killed) {
        violated("workers end with the server", worker.summary());
    }
}

/// What the server is in ends after a while.
fn end_states(world: &mut World) {
    if world.server.script && world.random.chance(10) {
        end_script(world);
    }
    if world.server.loading && world.random.chance(15) {
        load(world);
    }
    if world.server.replica && world.random.chance(5) {
        role_changes(world);
    }
}

fn everyone_goes_on(world: &mut World) {
    let numbers: Vec<_> = world.workers.keys().copied().collect();
    for number in numbers {
        world.let_go_on(number);
    }
    world.turn();
}

fn is_busy(world: &World) -> bool {
    world.server.script || world.server.loading
}

fn time_goes_on(world: &mut World) {
    let ms = match world.random.below(100) {
        0 => world.random.pick(&[2000, 2000, 2000, 65_000]),
        1..5 => 300,
        _ => world.random.between(1, 15),
    };
    // A server whose script runs, or that loads data, fires no timers.
    if is_busy(world) {
        world.now_ms += ms.min(50);
        return;
    }
    let end = world.now_ms + ms;
    for _ in 0..TIMERS_PER_STEP_MAX {
        let Some((at, _)) = world.timers.first().copied().filter(|(at, _)| *at <= end) else {
            world.now_ms = world.now_ms.max(end);
            return;
        };
        // One that is set again and again for now leaves time to others.
        world.now_ms = at.max(world.now_ms + 1);
        world.fire_timers();
    }
}

fn sender(world: &mut World, inside: Inside) -> Sender {
    let user = world.random.pick(&["default", "default", "default", "alice", "bob"]);
    let database = if world.random.chance(85) { 0 } else { world.random.below(DATABASES) as u32 };
    Sender { user: Some(user.into()), database, inside, administers: user == "default" }
}

/// Whether the server runs commands of clients that may write.
fn takes_writes(world: &World) -> bool {
    !world.situation().server.paused && !world.server.read_only
}

fn client_command(world: &mut World) {
    if is_busy(world) {
        return;
    }
    world.before_command();
    if world.random.chance(6) && takes_writes(world) {
        return transaction(world);
    }
    let sender = sender(world, Inside::Nothing);
    let Some(words) = words_of(world, true) else { return };
    let argv: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    world.execute(&argv, &sender);
}

fn transaction(world: &mut World) {
    let sender = sender(world, Inside::Transaction);
    world.server.transaction = true;
    world.begin_command();
    for _ in 0..world.random.between(1, 4) {
        if let Some(words) = words_of(world, false) {
            let argv: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            world.execute(&argv, &sender);
        }
    }
    // What the transaction fired runs when it has ended.
    world.server.transaction = false;
    world.end_command();
}

/// A script of the server: begins, executes one more command, ends.
fn script(world: &mut World) {
    if world.server.loading {
        return;
    }
    if !world.server.script {
        if takes_writes(world) {
            world.before_command();
            world.server.script = true;
            world.begin_command();
        }
        return;
    }
    if world.random.chance(60) {
        let sender = sender(world, Inside::Script);
        if let Some(words) = words_of(world, false) {
            let argv: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
            world.execute(&argv, &sender);
        }
        return;
    }
    end_script(world);
}

fn end_script(world: &mut World) {
    if std::mem::take(&mut world.server.script) {
        world.end_command();
    }
}

/// A command; `None`: the server would not run it now. `alone`: it is not inside of anything.
fn words_of(world: &mut World, alone: bool) -> Option<Vec<Vec<u8>>> {
    let writes = takes_writes(world);
    // Commands of the module decide by themselves what they do on a replica.
    let runs = !world.situation().server.paused;
    let number = |world: &mut World, most: u64| world.random.below(most).to_string().into_bytes();
    let words = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    let executions = world.seen.executions + 3;
    Some(match world.random.below(42) {
        0..8 if runs && alone => py_execute(world),
        8..16 if writes => {
            let large = world.random.chance(world.taste.large);
            let bytes = if large { world.random.pick(&[40_000, 300_000, 700_000]) } else { 3 };
            let mut set = vec![b"SET".to_vec(), b"k0:?".to_vec(), vec![b'v'; bytes]];
            if world.random.chance(25) {
                set.push(number(world, 300));
            }
            set
        }
        16..21 if writes => {
            let name = world.random.pick(&["a", "a", "b", FORBIDDEN]);
            let value = if world.random.chance(3) { "long" } else { "v" };
            let many = if world.random.chance(3) { world.random.pick(&[150, 150, 700]) } else { 1 };
            let add = words(&format!("XADD s0:{name} {value}"));
            if many > 1 && alone {
                let argv: Vec<&[u8]> = add.iter().map(Vec::as_slice).collect();
                let sender = Sender { user: None, database: 0, inside: Inside::Nothing, administers: true };
                for _ in 1..many {
                    world.before_command();
                    world.execute(&argv, &sender);
                }
                world.before_command();
            }
            add
        }
        21..28 if runs => {
            let name = world.random.below(crate::plans::NAMES);
            // Clients that trigger the same function in one turn: if it is a sync one, they are a group.
            let many = if alone && world.random.chance(10) { world.random.between(2, 20) } else { 1 };
            for _ in 1..many {
                let call = world.counters.trigger();
                let trigger = words(&format!("RG.TRIGGER t{name} 0 {call}"));
                let argv: Vec<&[u8]> = trigger.iter().map(Vec::as_slice).collect();
                let sender = Sender { user: None, database: 0, inside: Inside::Nothing, administers: true };
                world.execute(&argv, &sender);
                world.before_command();
            }
            let call = world.counters.trigger();
            let mut trigger = words(&format!("RG.TRIGGER t{name} 0 {call}"));
            if world.random.chance(world.taste.large / 2) {
                trigger.push(vec![b'a'; world.random.pick(&[100_000, 1_500_000])]);
            }
            trigger
        }
        28 if writes => vec![b"DEL".to_vec(), [b"k0:".to_vec(), number(world, 60)].concat()],
        29 if writes => {
            let (from, to) =
                (world.random.pick(&["s0:a", "s0:b", "s1:a", "x"]), world.random.pick(&["s0:a", "x", "s1:b"]));
            if from == to { words("GET k0:1") } else { words(&format!("RENAME {from} {to}")) }
        }
        30 if runs => {
            let mut unregister = vec![b"RG.UNREGISTER".to_vec(), number(world, 40)];
            if world.random.chance(50) {
                unregister.push(b"ABORTPENDING".to_vec());
            }
            unregister
        }
        31 => vec![b"RG.GETRESULTS".to_vec(), number(world, executions)],
        32 | 33 => vec![b"RG.GETRESULTSBLOCKING".to_vec(), number(world, executions)],
        34 if runs => vec![b"RG.DROPEXECUTION".to_vec(), number(world, executions)],
        35 | 36 if runs => vec![b"RG.ABORTEXECUTION".to_vec(), number(world, executions)],
        37 => words("RG.DUMPEXECUTIONS"),
        38 => words("RG.DUMPREGISTRATIONS"),
        39..42 if writes && alone => {
            let stream = world.random.pick(&["s0:a", "s0:b"]);
            let entries =
                world.server.stream(0, stream.as_bytes()).map(|stream| stream.entries.keys().copied().collect());
            let entries: Vec<_> = entries.unwrap_or_default();
            if entries.is_empty() {
                return None;
            }
            words(&format!("XDEL {stream} {}", world.random.pick(&entries)))
        }
        _ => words("GET k0:3"),
    })
}

fn py_execute(world: &mut World) -> Vec<Vec<u8>> {
    let source = world.programs.script(&mut world.random, &world.taste);
    let registration = world.random.below(40);
    let mut words = vec![b"RG.PYEXECUTE".to_vec(), source];
    let random = &mut world.random;
    if random.chance(30) {
        words.push(b"UNBLOCKING".to_vec());
    }
    if random.chance(25) {
        let function = match random.chance(50) {
            true => world.programs.run(random, &world.taste),
            false => world.programs.registered(random, &world.taste),
        };
        let action =
            if random.chance(95) == world.programs.functions[function].is_registered { "REGISTER" } else { "RUN" };
        let plan = world.programs.functions[function].spec.clone();
        words.extend([action.as_bytes().to_vec(), plan, function.to_string().into_bytes()]);
        if let Some(version) = ["3.13", "3.9", "3.9", "3.7"].get(function % 12) {
            world.programs.compiled.insert(function, version);
            words.extend([b"PYTHON".to_vec(), version.as_bytes().to_vec()]);
        }
    }
    let id = |random: &mut Random| format!("id{}", random.below(3)).into_bytes();
    match random.below(8) {
        0 => words.extend([b"ID".to_vec(), id(random)]),
        1 => words.extend([b"ID".to_vec(), id(random), b"UPGRADE".to_vec()]),
        2 => {
            let registration = redgrease_core::id::ShardId::standalone().identifier(registration).into_bytes();
            let replaced = if random.chance(50) { registration } else { id(random) };
            words.extend([b"REPLACE_WITH".to_vec(), replaced]);
        }
        3 => words.extend([b"DESCRIPTION".to_vec(), b"what it does".to_vec()]),
        _ => {}
    }
    if random.chance(12) {
        if random.chance(20) {
            words.push(b"FORCE_REINSTALL_REQUIREMENTS".to_vec());
        }
        words.push(b"REQUIREMENTS".to_vec());
        words.extend(
            random
                .pick(&[&["numpy"][..], &["six", "redgrease"], &["redgrease"]])
                .iter()
                .map(|name| name.as_bytes().to_vec()),
        );
    }
    words
}

fn role_changes(world: &mut World) {
    if is_busy(world) {
        return;
    }
    world.server.replica = !world.server.replica;
    world.server.read_only = world.server.replica && world.random.chance(80);
    world.hand_in(Input::RoleChanged);
}

/// Clients are paused, sometimes for a change of roles.
fn pause(world: &mut World) {
    let ms = world.random.pick(&[1, 10, 60, 60, 400, 400, 70_000]);
    world.server.paused_until_ms = world.now_ms + ms;
    if world.random.chance(30) {
        role_changes(world);
        role_changes(world);
    }
}

fn load(world: &mut World) {
    if !world.server.script {
        world.server.loading = !world.server.loading;
    }
}

fn swap(world: &mut World) {
    if is_busy(world) || !takes_writes(world) {
        return;
    }
    world.before_command();
    world.in_command(|world| {
        world.server.databases.swap(0, 1);
        world.hand_in(Input::DatabasesSwapped(Database(0), Database(1)));
    });
}

fn expire(world: &mut World) {
    if is_busy(world) || world.situation().server.paused {
        return;
    }
    while let Some((database, key)) = world.server.expired_key(world.now_ms) {
        if let Some(event) = world.server.expire(database, &key, world.now_ms) {
            world.in_command(|world| world.notify(&event));
        }
    }
}

fn misfortune(world: &mut World) {
    let Some(number) = world.some_worker() else { return };
    let task = world.workers.get(&number).and_then(|worker| worker.some_task(&mut world.random));
    let choice = world.random.below(10);
    world.with_worker(number, |worker, context| match (choice, task) {
        (0..5, _) => worker.end("was killed by signal 9 (SIGKILL)"),
        (5, _) => worker.closed = true,
        (6, Some(task)) => worker.suffer(task, Misfortune::Hang, context),
        (7, _) => worker.suffer(0, Misfortune::Stopped, context),
        (8, _) => worker.suffer(0, Misfortune::Unread, context),
        (_, task) => worker.suffer(task.unwrap_or(0), Misfortune::Flood, context),
    });
}

/// From here on nothing new happens, and nothing goes wrong.
fn calm_down(world: &mut World) {
    world.calm = true;
    world.note(|| "calm".to_owned());
    end_script(world);
    world.server.loading = false;
    world.server.permissive = true;
    world.server.paused_until_ms = 0;
    for start in world.starting.values_mut() {
        start.fails = false;
    }
    if std::mem::take(&mut world.server.replica) {
        world.server.read_only = false;
        world.hand_in(Input::RoleChanged);
    }
    expire(world);
}

/// Runs until only periodic timers are left.
fn come_to_rest(world: &mut World) -> Audit {
    let mut quiet_rounds = 0;
    for round in 0..CALM_ROUNDS_MAX {
        world.step += 1;
        let mut moved = world.fire_timers();
        let numbers: Vec<_> = world.workers.keys().copied().collect();
        for number in numbers {
            moved |= world.let_go_on(number);
        }
        moved |= world.turn();
        if moved {
            if round % 64 == 0 {
                world.audit();
            }
            continue;
        }
        quiet_rounds += 1;
        if quiet_rounds % 8 == 1 {
            let audit = world.audit();
            if audit.left().is_empty()
                && world.starting.is_empty()
                && world.searches.is_empty()
                && world.installs.is_empty()
                && world.sharing.is_empty()
            {
                return audit;
            }
        }
        match world.next_event_ms() {
            Some(at) => world.now_ms = world.now_ms.max(at),
            None => break,
        }
    }
    let audit = world.audit();
    let workers: Vec<String> = world.workers.values().map(crate::worker::Worker::summary).collect();
    let text = format!("left: {:?}; workers: {workers:#?}; clients: {:?}", audit.left(), world.clients.unanswered());
    violated("everything comes to an end", text);
}

fn check_end(world: &World, audit: &Audit) {
    let unanswered = world.clients.unanswered();
    if !unanswered.is_empty() {
        violated("each client is answered", format!("{unanswered:?}"));
    }
    if audit.sessions[0] != audit.sessions[1] {
        violated("sessions without registrations end", format!("{:?} sessions", audit.sessions));
    }
    for registration in &audit.registrations {
        if registration.triggered != registration.ended {
            violated("each event ends in success, failure or abort", format!("{registration:?}"));
        }
        check_streams(world, registration);
    }
}

fn check_streams(world: &World, registration: &AuditedRegistration) {
    let Some(stream) = registration.stream.as_ref().filter(|stream| stream.reads && stream.continues) else { return };
    if registration.down || world.seen.hostile {
        return;
    }
    for key in world.server.databases[registration.database.0 as usize].keys() {
        let Some(found) = world.server.stream(registration.database.0, key) else { continue };
        let Some(group) = found.groups.get(&stream.group) else { continue };
        let name = String::from_utf8_lossy(key);
        // Entries that could not be read when the user was not permitted to are passed over.
        if !stream.matches(key) || crate::server::is_forbidden(&registration.user, key) {
            continue;
        }
        if let Some(id) = group.pending.first() {
            let text = format!("entry {id} of stream '{name}' for {registration:?}");
            violated("entries that were read are processed and acknowledged", text);
        }
        let unread = found.entries.range(group.last..).filter(|(id, _)| **id > group.last).count() as u64;
        let allowed = if stream.timed { 0 } else { stream.batch - 1 };
        if unread > allowed && !registration.sync {
            let text = format!("{unread} entries of stream '{name}' are not read for {registration:?}");
            violated("entries that were added are read", text);
        }
    }
}

fn unregister_all(world: &mut World, audit: &Audit) {
    for registration in &audit.registrations {
        let number = registration.number.to_string();
        let sender = Sender { user: None, database: 0, inside: Inside::Nothing, administers: true };
        world.before_command();
        let answer = world.execute(&[b"RG.UNREGISTER", number.as_bytes(), b"ABORTPENDING"], &sender);
        if !matches!(answer, Some(Ok(_))) {
            violated("a registration can be unregistered", format!("{registration:?}: {answer:?}"));
        }
    }
}
