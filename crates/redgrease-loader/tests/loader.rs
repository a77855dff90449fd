//! The loader with a server that is a model: what it sends, and what it does about errors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use redgrease_loader::error::{Class, Error};
use redgrease_loader::files::Root;
use redgrease_loader::layers::Layer;
use redgrease_loader::loader::Loader;
use redgrease_loader::log::{Level, Log};
use redgrease_loader::server::{Outcome, Script, Server};
use redgrease_loader::settings::Settings;

/// A server whose scripts are words: `register` registers something, `fail` raises an exception, `lose` breaks the
/// connection, and all others do nothing.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<String, Vec<String>>,
    hashes: BTreeMap<Vec<u8>, BTreeMap<String, String>>,
    executed: Vec<String>,
    requirements: Vec<Vec<String>>,
    registered: u32,
}

#[derive(Clone, Default)]
struct ModelServer(Arc<Mutex<Model>>);

impl ModelServer {
    fn model(&self) -> MutexGuard<'_, Model> {
        self.0.lock().unwrap()
    }
}

impl Server for ModelServer {
    fn connect(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn ping(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn execute(&mut self, script: &Script<'_>) -> Result<Outcome, Error> {
        let text = String::from_utf8_lossy(script.text).trim().to_owned();
        let mut model = self.model();
        model.executed.push(text.clone());
        model.requirements.push(script.requirements.to_vec());
        match text.as_str() {
            "lose" => return Err(Error::plain(Class::Unreachable, "lost")),
            "fail" => return Err(Error::plain(Class::Failed, "E: no\nTraceback:\nE: no")),
            "forbidden" => return Err(Error::plain(Class::Denied, "NOPERM")),
            _ if script.requirements.iter().any(|each| each == "missing") => {
                return Err(Error::plain(Class::Failed, "not installed"));
            }
            "register" => {
                model.registered += 1;
                let id = format!("0-{}", model.registered);
                let session = script.session.expect("scripts have sessions").to_owned();
                model.sessions.insert(session, vec![id]);
            }
            _ => {}
        }
        Ok(Outcome::default())
    }

    fn registrations(&mut self, sessions: &[String]) -> Result<BTreeMap<String, Vec<String>>, Error> {
        let model = self.model();
        let found = sessions.iter().filter_map(|id| Some((id.clone(), model.sessions.get(id)?.clone())));
        Ok(found.collect())
    }

    fn unregister(&mut self, registration: &str) -> Result<bool, Error> {
        let mut model = self.model();
        let before = model.sessions.len();
        model.sessions.retain(|_, ids| ids != &[registration.to_owned()]);
        Ok(model.sessions.len() < before)
    }

    fn write_hash(&mut self, key: &[u8], fields: &[(&str, String)]) -> Result<(), Error> {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        self.model().hashes.insert(key.to_vec(), fields);
        Ok(())
    }

    fn read_hash(&mut self, key: &[u8], field: &str) -> Result<Option<String>, Error> {
        Ok(self.model().hashes.get(key).and_then(|fields| fields.get(field).cloned()))
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Error> {
        self.model().hashes.remove(key);
        Ok(())
    }

    fn place(&self) -> String {
        "model:1".to_owned()
    }
}

/// A loader of a directory, its server, and its log.
struct World {
    directory: tempfile::TempDir,
    server: ModelServer,
    loader: Loader,
    log: Arc<Mutex<Vec<(Level, String)>>>,
}

impl World {
    fn new() -> Self {
        let server = ModelServer::default();
        let log = Arc::new(Mutex::new(Vec::new()));
        let lines = log.clone();
        let write: Log = Arc::new(move |level, message| lines.lock().unwrap().push((level, message.to_owned())));
        let settings = Settings::resolve(Layer::default(), |_| None, &[]).unwrap().loader;
        let loader = Loader::new(settings, Box::new(server.clone()), write);
        Self { directory: tempfile::tempdir().unwrap(), server, loader, log }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// Writes a file, with another inode than before.
    fn write(&self, name: &str, text: &str) {
        let new = self.path(".new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path(name)).unwrap();
    }

    fn add(&mut self) -> Result<(), Error> {
        let root = Root::new(self.directory.path(), false)?;
        self.loader.add(vec![root])
    }

    fn look(&mut self) -> Result<(), Error> {
        self.loader.look_again(&|_: &Path| true)
    }

    fn executed(&self) -> Vec<String> {
        std::mem::take(&mut self.server.model().executed)
    }

    /// The number of sessions, and of keys of the index.
    fn sessions_and_keys(&self) -> (usize, usize) {
        let model = self.server.model();
        (model.sessions.len(), model.hashes.len())
    }

    fn has_logged(&self, level: Level, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|(of, message)| *of == level && message.contains(text))
    }
}

#[test]
fn changed_files_are_loaded_once() {
    let mut world = World::new();
    world.write("a.py", "register");
    world.write("b.py", "register");
    world.add().unwrap();
    world.look().unwrap();
    assert_eq!(world.executed(), ["register", "register"]);
    world.write("b.py", "other");
    world.look().unwrap();
    assert_eq!(world.executed(), ["other"]);
}

#[test]
fn files_that_wait_are_left_alone() {
    let mut world = World::new();
    world.add().unwrap();
    world.write("a.py", "register");
    world.loader.look_again(&|path| !path.ends_with("a.py")).unwrap();
    assert!(world.executed().is_empty());
    let path = world.path("a.py");
    world.loader.look_at(&[path]).unwrap();
    assert_eq!(world.executed(), ["register"]);
}

#[test]
fn a_script_that_registers_nothing_any_more_loses_its_registrations() {
    let mut world = World::new();
    world.write("a.py", "register");
    world.add().unwrap();
    assert_eq!(world.sessions_and_keys(), (1, 1));
    world.write("a.py", "nothing");
    world.look().unwrap();
    assert_eq!(world.sessions_and_keys(), (0, 0));
}

#[test]
fn a_script_that_fails_or_is_empty_keeps_them() {
    let mut world = World::new();
    world.write("a.py", "register");
    world.add().unwrap();
    for text in ["fail", "", " \n"] {
        world.write("a.py", text);
        world.look().unwrap();
        assert_eq!(world.sessions_and_keys(), (1, 1), "{text:?}");
        assert_eq!(world.loader.failed().len(), usize::from(text == "fail"));
    }
    assert!(world.has_logged(Level::Error, "a.py: not loaded: E: no\nTraceback:\nE: no"));
    assert!(world.has_logged(Level::Warning, "a.py: it is empty"));
}

#[test]
fn removed_scripts_are_unregistered_and_failed_ones_tried_again() {
    let mut world = World::new();
    world.write("a.py", "register");
    world.write("b.py", "fail");
    world.add().unwrap();
    world.executed();
    std::fs::remove_file(world.path("a.py")).unwrap();
    world.look().unwrap();
    assert!(world.server.model().sessions.is_empty());
    assert_eq!(world.executed(), ["fail"]);
}

#[test]
fn changed_requirements_load_all_scripts_again_and_bad_ones_are_not_used() {
    let mut world = World::new();
    world.write("a.py", "register");
    world.write("requirements.txt", "x\ny");
    world.add().unwrap();
    assert_eq!(world.executed(), ["", "register"]);
    world.write("requirements.txt", "missing");
    world.look().unwrap();
    assert_eq!(world.executed(), [""]);
    world.write("a.py", "register");
    world.write("requirements.txt", "z");
    world.look().unwrap();
    assert_eq!(world.executed(), ["", "register"]);
    let last = |back: usize| {
        let requirements = world.server.model().requirements.clone();
        requirements[requirements.len() - back].clone()
    };
    assert_eq!(last(1), ["z"]);
}

#[test]
fn only_what_a_server_does_not_have_is_loaded_after_a_restart() {
    let mut world = World::new();
    world.write("a.py", "register");
    world.write("b.py", "register");
    world.write("c.py", "runs");
    world.add().unwrap();
    world.executed();
    let first = world.server.model().sessions.keys().next().unwrap().clone();
    world.server.model().sessions.remove(&first);
    world.loader.load_missing().unwrap();
    assert_eq!(world.executed(), ["register"]);
    assert_eq!(world.server.model().sessions.len(), 2);
}

#[test]
fn a_script_that_breaks_the_connection_is_given_up_after_some_attempts() {
    let mut world = World::new();
    world.write("a.py", "lose");
    world.write("b.py", "register");
    assert_eq!(world.add().unwrap_err().class, Class::Unreachable);
    assert_eq!(world.look().unwrap_err().class, Class::Unreachable);
    world.look().unwrap();
    world.look().unwrap();
    assert_eq!(world.executed(), ["lose", "lose", "lose", "register"]);
    assert_eq!(world.loader.failed(), [world.path("a.py")]);
    world.loader.load_missing().unwrap();
    assert!(world.executed().is_empty());
}

#[test]
fn without_permission_nothing_more_is_tried() {
    let mut world = World::new();
    world.write("a.py", "forbidden");
    world.write("b.py", "register");
    assert_eq!(world.add().unwrap_err().class, Class::Denied);
    assert_eq!(world.executed(), ["forbidden"]);
}

#[test]
fn what_another_program_recorded_is_unregistered() {
    let mut world = World::new();
    let key = format!("/redgrease/scripts{}", world.path("a.py").display());
    world.server.model().sessions.insert("foreign".to_owned(), vec!["0-9".to_owned()]);
    world.server.write_hash(key.as_bytes(), &[("registration_id", "0-9".to_owned())]).unwrap();
    world.loader.unregister_script(&world.path("a.py")).unwrap();
    assert_eq!(world.sessions_and_keys(), (0, 0));
}
