//! What the kernel keeps a worker from doing: see `docs/security.md`.
//!
//! Applied by the only thread of the process, before it imports or runs anything of users; threads and children inherit it.
//! Whatever a kernel lacks is left out, and named in the result.

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// Applies the limits to this process and all that it starts; returns what the kernel enforces, as words for people.
///
/// `memory_bytes_max`: bytes of data that the process may allocate, 0 for no limit. `confine`: whether files, system calls
/// and signals are restricted; files may then be changed only below `writable`.
#[pyfunction]
pub fn isolate(memory_bytes_max: u64, confine: bool, writable: Vec<String>) -> PyResult<String> {
    limit_memory(memory_bytes_max).map_err(|error| PyOSError::new_err(format!("memory limit: {error}")))?;
    if !confine {
        return Ok("off".to_owned());
    }
    os::confine(&writable).map_err(PyOSError::new_err)
}

/// The address space is not limited: it says nothing about memory that is used.
fn limit_memory(bytes_max: u64) -> Result<(), rustix::io::Errno> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    if bytes_max == 0 {
        return Ok(());
    }
    let present = getrlimit(Resource::Data).maximum;
    let limit = Some(present.map_or(bytes_max, |present| present.min(bytes_max)));
    setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit })
}

#[cfg(target_os = "linux")]
mod os {
    use std::collections::BTreeMap;

    use landlock::{
        ABI, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus, Scope,
        path_beneath_rules,
    };
    use seccompiler::{
        BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
        apply_filter,
    };

    /// The kernel's process that is ended first when the machine runs out of memory.
    const OOM_SCORE_ADJ: &str = "1000";

    /// Calls for debugging other processes, for changing the system, and for leaving the process's namespaces; and one that
    /// runs other calls without being seen by the filter (`io_uring_setup`).
    const FORBIDDEN: [i64; 44] = [
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_kcmp,
        libc::SYS_pidfd_getfd,
        libc::SYS_perf_event_open,
        libc::SYS_bpf,
        libc::SYS_userfaultfd,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_fsopen,
        libc::SYS_fsconfig,
        libc::SYS_fsmount,
        libc::SYS_fspick,
        libc::SYS_mount_setattr,
        libc::SYS_open_by_handle_at,
        libc::SYS_quotactl,
        libc::SYS_swapon,
        libc::SYS_swapoff,
        libc::SYS_acct,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_delete_module,
        libc::SYS_kexec_load,
        libc::SYS_kexec_file_load,
        libc::SYS_reboot,
        libc::SYS_syslog,
        libc::SYS_vhangup,
        libc::SYS_settimeofday,
        libc::SYS_clock_settime,
        libc::SYS_clock_adjtime,
        libc::SYS_adjtimex,
        libc::SYS_sethostname,
        libc::SYS_setdomainname,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_keyctl,
        libc::SYS_io_uring_setup,
    ];

    pub fn confine(writable: &[String]) -> Result<String, String> {
        // A container may refuse it; then the kernel's choice among processes is the usual one.
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ);
        rustix::thread::set_no_new_privs(true).map_err(|error| format!("no-new-privs: {error}"))?;
        let mut enforced = vec!["no-new-privs"];
        enforced.extend(restrict_files(writable).map_err(|error| format!("Landlock: {error}"))?);
        if restrict_calls()? {
            enforced.push("seccomp");
        }
        Ok(enforced.join(" "))
    }

    /// Files are changed only below `writable`, and signals reach only what this process started.
    fn restrict_files(writable: &[String]) -> Result<Option<&'static str>, landlock::RulesetError> {
        let change = AccessFs::from_write(ABI::V5);
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(change)?
            .scope(Scope::Signal)?
            .create()?
            .add_rules(path_beneath_rules(writable, change))?
            .restrict_self()?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Some("landlock"),
            RulesetStatus::PartiallyEnforced => Some("landlock-partly"),
            RulesetStatus::NotEnforced => None,
        })
    }

    /// Returns whether the kernel has filters of system calls.
    fn restrict_calls() -> Result<bool, String> {
        // Its flags are in memory, out of a filter's reach; C libraries then use `clone`.
        let unseen = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let mut forbidden: BTreeMap<i64, Vec<SeccompRule>> = FORBIDDEN.iter().map(|call| (*call, Vec::new())).collect();
        forbidden.insert(libc::SYS_clone, vec![new_user_namespace()?]);
        for (rules, errno) in [(unseen, libc::ENOSYS), (forbidden, libc::EPERM)] {
            let program = compile(rules, errno)?;
            match apply_filter(&program) {
                Ok(()) => {}
                Err(seccompiler::Error::Seccomp(error) | seccompiler::Error::Prctl(error))
                    if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(format!("seccomp: {error}")),
            }
        }
        Ok(true)
    }

    fn new_user_namespace() -> Result<SeccompRule, String> {
        let flag = libc::CLONE_NEWUSER as u64;
        SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(flag), flag)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(|error| format!("seccomp: {error}"))
    }

    fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: i32) -> Result<BpfProgram, String> {
        let machine = std::env::consts::ARCH
            .try_into()
            .map_err(|error: seccompiler::BackendError| format!("seccomp: {error}"))?;
        SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), machine)
            .and_then(TryInto::try_into)
            .map_err(|error: seccompiler::BackendError| format!("seccomp: {error}"))
    }
}

#[cfg(not(target_os = "linux"))]
mod os {
    pub fn confine(_writable: &[String]) -> Result<String, String> {
        Ok("none".to_owned())
    }
}
