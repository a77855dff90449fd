//! Whether the server's loop has something else to do: events that wait for its next turn.

use std::fs;
use std::os::fd::{OwnedFd, RawFd};

use redgrease_ffi::event_loop::duplicate;
use rustix::event::epoll;
use rustix::time::Timespec;

/// The highest count of descriptors: it also stands for more of them.
const COUNTED_MAX: usize = 127;

/// The loop's epoll instance, if it was found.
pub struct LoopEvents(Option<OwnedFd>);

impl LoopEvents {
    /// The instance that watches the descriptor `watched`. There is none on systems without epoll or procfs.
    pub fn find(watched: RawFd) -> LoopEvents {
        LoopEvents(instance_with(watched).and_then(|number| duplicate(number).ok()))
    }

    /// How many descriptors other than `ignored` are ready now, at most [`COUNTED_MAX`]; that number also where it is not known.
    pub fn count(&self, ignored: RawFd) -> usize {
        let Some(instance) = &self.0 else { return COUNTED_MAX };
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // The loop watches level-triggered, so that its own look finds the same events.
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
        let mut events = [none; COUNTED_MAX + 1];
        match epoll::wait(instance, &mut events[..], Some(&now)) {
            // The loop stores the descriptor in the lower half.
            Ok(count) => events[..count].iter().filter(|event| { event.data }.u64() as u32 != ignored as u32).count(),
            Err(_) => COUNTED_MAX,
        }
    }
}

fn instance_with(watched: RawFd) -> Option<RawFd> {
    let numbers = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let mut numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.find(|number| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let mut watches =
            info.lines().filter_map(|line| line.strip_prefix("tfd:")?.split_whitespace().next()?.parse().ok());
        watches.any(|descriptor: RawFd| descriptor == watched)
    })
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use rustix::event::{EventfdFlags, eventfd};

    use super::*;

    #[test]
    fn events_of_other_descriptors_are_seen() {
        let instance = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
        let [ignored, watched] = [1, 0].map(|value| eventfd(value, EventfdFlags::CLOEXEC).unwrap());
        for fd in [&ignored, &watched] {
            let data = epoll::EventData::new_u64(fd.as_raw_fd() as u64);
            epoll::add(&instance, fd, data, epoll::EventFlags::IN).unwrap();
        }
        let events = LoopEvents::find(watched.as_raw_fd());
        assert_eq!(events.count(ignored.as_raw_fd()), 0);
        assert_eq!(events.count(-1), 1, "the other one is ready");
        rustix::io::write(&watched, &1_u64.to_ne_bytes()).unwrap();
        assert_eq!([(); 2].map(|()| events.count(ignored.as_raw_fd())), [1; 2], "it stays ready");
    }

    #[test]
    fn without_the_instance_others_may_wait() {
        let unwatched = eventfd(0, EventfdFlags::CLOEXEC).unwrap();
        assert_eq!(LoopEvents::find(unwatched.as_raw_fd()).count(-1), COUNTED_MAX);
    }
}
