//! The reply of INFO: fields, and the workers in them.

/// Fields of INFO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info(Vec<(String, String)>);

/// A worker process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Worker {
    pub number: u64,
    pub pid: u64,
    pub sessions: u64,
    /// Requests that it has served.
    pub served: u64,
    pub rss_bytes: u64,
    pub peak_rss_bytes: u64,
    /// How the kernel confines it.
    pub isolation: String,
}

impl Info {
    pub fn parse(text: &str) -> Self {
        let fields = text.lines().filter_map(|line| line.trim_end().split_once(':'));
        Self(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// A number; 0 if it is not there.
    pub fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// The workers by their number.
    pub fn workers(&self) -> Vec<Worker> {
        let rows = self.0.iter().filter_map(|(name, value)| {
            let number = name.strip_prefix("rg_worker_")?.parse().ok()?;
            Some(Worker::parse(number, value))
        });
        let mut workers: Vec<Worker> = rows.collect();
        workers.sort_by_key(|worker| worker.number);
        workers
    }

    /// Name and version of the server.
    pub fn server(&self) -> String {
        match (self.get("valkey_version"), self.get("redis_version")) {
            (Some(version), _) => format!("Valkey {version}"),
            (None, Some(version)) => format!("Redis {version}"),
            (None, None) => "server".to_owned(),
        }
    }
}

impl Worker {
    fn parse(number: u64, row: &str) -> Self {
        let field = |name: &str| row.split(',').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        let count = |name: &str| field(name).and_then(|value| value.parse().ok()).unwrap_or(0);
        Self {
            number,
            pid: count("pid"),
            sessions: count("sessions"),
            served: count("served"),
            rss_bytes: count("rss"),
            peak_rss_bytes: count("peak_rss"),
            isolation: field("isolation").unwrap_or_default().to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_read_and_sorted() {
        let text = "# rg_workers\r\nrg_workers:2\r\nrg_worker_10:pid=9,sessions=0,served=1,rss=5,peak_rss=6,isolation=\r\n\
                    rg_worker_2:pid=7,sessions=1,served=3,rss=10,peak_rss=20,isolation=landlock seccomp\r\n";
        let info = Info::parse(text);
        assert_eq!(info.number("rg_workers"), 2);
        let workers = info.workers();
        assert_eq!(workers.iter().map(|worker| worker.number).collect::<Vec<_>>(), [2, 10]);
        let expected = Worker {
            number: 2,
            pid: 7,
            sessions: 1,
            served: 3,
            rss_bytes: 10,
            peak_rss_bytes: 20,
            isolation: "landlock seccomp".to_owned(),
        };
        assert_eq!(workers[0], expected);
    }

    #[test]
    fn a_field_that_is_not_there_is_none() {
        let info = Info::parse("redis_version:7.0.15\r\n");
        assert_eq!((info.get("x"), info.number("x"), info.server().as_str()), (None, 0, "Redis 7.0.15"));
    }
}
