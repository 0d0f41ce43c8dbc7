//! What the machine has, or its control group allows: where the configuration leaves that open.

use std::fs;
use std::path::Path;

use luminate_crds::worker_config::{ByteSize, WorkerConfig};

/// What is assumed where nothing can be read.
const UNKNOWN_MEMORY: u64 = 2 << 30;
/// The engine always gets this much.
const LEAST_MEMORY: u64 = 64 << 20;

/// Fills in the engine's memory (half of what there is) and threads (as many as there are cores).
pub fn fill_in(config: &mut WorkerConfig) {
    let engine = &mut config.storage.rocksdb;
    engine.memory.get_or_insert_with(|| ByteSize((memory(Path::new("/")) / 2).max(LEAST_MEMORY)));
    engine.threads.get_or_insert_with(cores);
}

/// Cores that this process may use; the standard library reads affinity and cgroup quotas, v1 and v2.
#[must_use]
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// Bytes of memory that this process may use, under the file system at `root`.
fn memory(root: &Path) -> u64 {
    let machine = meminfo(root).unwrap_or(UNKNOWN_MEMORY);
    cgroup_limit(root).map_or(machine, |limit| limit.min(machine))
}

fn meminfo(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit of the process's control group and those above it.
///
/// `/proc/self/cgroup` has a line `0::/path` for v2 and `n:memory:/path` for v1; inside a container
/// the path may be one of the host that isn't visible, and then the root of the mount is the group.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let path_of = |wanted: &dyn Fn(&str) -> bool| {
        let lines =
            groups.lines().filter_map(|line| line.split_once(':').and_then(|(_, rest)| rest.split_once(':')));
        lines.filter(|(controllers, _)| wanted(controllers)).map(|(_, path)| path).next().unwrap_or("/")
    };
    let unified = path_of(&str::is_empty);
    let memory = path_of(&|controllers: &str| controllers.split(',').any(|name| name == "memory"));
    let v2 = smallest(&root.join("sys/fs/cgroup"), unified, "memory.max");
    let v1 = smallest(&root.join("sys/fs/cgroup/memory"), memory, "memory.limit_in_bytes");
    v2.into_iter().chain(v1).min()
}

fn smallest(mount: &Path, group: &str, file: &str) -> Option<u64> {
    let group = Path::new(group.trim_start_matches('/'));
    let limits = group.ancestors().filter_map(|group| limit(&mount.join(group).join(file)));
    limits.min()
}

/// A limit; v2 writes `max` for none, v1 a number near 2^63.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok().filter(|limit| *limit < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of files under a fresh directory.
    fn machine(name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("luminate-machine-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
    const GIB: u64 = 1 << 30;

    fn memory_of(name: &str, files: &[(&str, &str)]) -> u64 {
        let root = machine(name, files);
        let bytes = memory(&root);
        fs::remove_dir_all(root).unwrap();
        bytes
    }

    #[test]
    fn the_smallest_limit_of_a_v2_group_and_its_parents_holds() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/kubepods/pod1/worker\n"),
            ("sys/fs/cgroup/kubepods/memory.max", "2147483648\n"),
            ("sys/fs/cgroup/kubepods/pod1/worker/memory.max", "max\n"),
        ];
        assert_eq!(memory_of("v2", &files), 2 * GIB);
    }

    #[test]
    fn a_v1_group_is_read_where_it_is_mounted() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "9:cpu,cpuacct:/x\n5:memory:/docker/abc\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n"),
        ];
        assert_eq!(memory_of("v1", &files), GIB);
    }

    #[test]
    fn without_a_limit_the_machine_counts() {
        let unlimited = [MEMINFO, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")];
        assert_eq!(memory_of("none", &unlimited), 8 * GIB);
        assert_eq!(memory_of("unknown", &[("x", "")]), UNKNOWN_MEMORY);
    }

    #[test]
    fn what_is_set_stays() {
        let mut config = WorkerConfig::default();
        config.storage.rocksdb.memory = Some(ByteSize(5));
        fill_in(&mut config);
        assert_eq!(config.storage.rocksdb.memory, Some(ByteSize(5)));
        assert_eq!(config.storage.rocksdb.threads, Some(cores()));
    }
}
