//! A file system that fails where it is told to: every call goes on to a folder in memory, but for the one that a fault
//! names.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};
use nix::fcntl::{FallocateFlags, fallocate};
use tempfile::TempDir;

/// Nothing is remembered by the kernel: every question comes here.
const NO_TIME: Duration = Duration::ZERO;
/// What there is room for, in blocks.
const BLOCKS: u64 = 1 << 24;
const BLOCK: u32 = 4_096;

/// What is asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Bytes into a file.
    Write,
    /// What was written onto stable storage, of a file or a folder.
    Sync,
    /// A new file or folder.
    Create,
    /// A file or folder away.
    Remove,
    /// Another name.
    Rename,
    /// One more name.
    Link,
    /// Another length.
    Resize,
    /// Room in advance.
    Allocate,
    /// Bytes from a file.
    Read,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// EIO, to whatever changes something.
    Broken,
    /// ENOSPC, to whatever takes room.
    Full,
    /// A write writes half of what it is given, and says so.
    Short,
    /// EIO to a read.
    Unreadable,
    /// A write that does nothing and says that all is well: no disk may, and it must be noticed.
    Lost,
}

impl Kind {
    fn concerns(self, call: Call) -> bool {
        match self {
            Self::Broken => call != Call::Read,
            Self::Full => !matches!(call, Call::Read | Call::Sync | Call::Remove),
            Self::Short | Self::Lost => call == Call::Write,
            Self::Unreadable => call == Call::Read,
        }
    }

    fn code(self) -> Errno {
        match self {
            Self::Full => Errno::ENOSPC,
            _ => Errno::EIO,
        }
    }
}

/// Which call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// How.
    pub kind: Kind,
    /// Which of the calls that the kind concerns, from 1 on.
    pub at: u64,
    /// Whether all later ones do too.
    pub lasting: bool,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = if self.lasting { " and from there on" } else { "" };
        write!(formatter, "{:?} at call {}{on}", self.kind, self.at)
    }
}

/// The fault that is set, and what has come of it.
#[derive(Debug, Default)]
struct Plan {
    fault: Option<Fault>,
    calls: u64,
    struck: Option<Call>,
}

/// A mounted file system.
#[derive(Debug)]
pub struct Disk {
    folder: TempDir,
    passing: Passing,
    session: Option<BackgroundSession>,
}

impl Disk {
    /// Mounts an empty one whose files are in memory.
    ///
    /// # Errors
    /// Without root or `/dev/fuse`.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let (root, mounted) = (folder.path().join("root"), folder.path().join("mounted"));
        fs::create_dir(&root)?;
        fs::create_dir(&mounted)?;
        let passing = Passing(Arc::new(State::new(root)));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty".to_owned())];
        let session = fuser::spawn_mount(passing.clone(), &mounted, &config)?;
        Ok(Self { folder, passing, session: Some(session) })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    /// Sets a fault, or none; calls are counted from here on.
    pub fn set(&self, fault: Option<Fault>) {
        *held(&self.passing.0.plan) = Plan { fault, ..Plan::default() };
    }

    /// How many calls the fault that is set concerned, and which it struck first.
    #[must_use]
    pub fn seen(&self) -> (u64, Option<Call>) {
        let plan = held(&self.passing.0.plan);
        (plan.calls, plan.struck)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.session.take().is_some_and(|session| session.umount_and_join().is_err()) {
            // It is in use and stays where it is.
            self.folder.disable_cleanup(true);
        }
    }
}

/// Locked; what a panic left is as good as before, since nothing is changed in steps.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answer<T> = Result<T, Errno>;

#[derive(Debug)]
struct State {
    plan: Mutex<Plan>,
    names: Mutex<Names>,
    files: Mutex<Files>,
}

/// Open files by handle, each with its number.
#[derive(Debug, Default)]
struct Files {
    open: HashMap<u64, (INodeNo, Arc<File>)>,
    next: u64,
}

/// Numbers and paths: every path has its own, also of one file.
#[derive(Debug)]
struct Names {
    paths: HashMap<INodeNo, PathBuf>,
    numbers: HashMap<PathBuf, INodeNo>,
    next: u64,
}

impl Names {
    fn of(&mut self, path: PathBuf) -> INodeNo {
        if let Some(number) = self.numbers.get(&path) {
            return *number;
        }
        self.next += 1;
        let number = INodeNo(self.next);
        self.paths.insert(number, path.clone());
        self.numbers.insert(path, number);
        number
    }

    fn forget(&mut self, path: &Path) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    /// Whatever was at `from` or below it is at `to` now.
    fn moved(&mut self, from: &Path, to: &Path) {
        let below: Vec<PathBuf> =
            self.numbers.keys().filter(|path| path.starts_with(from)).cloned().collect();
        self.forget(to);
        for path in below {
            let rest = path.strip_prefix(from).unwrap_or(Path::new(""));
            let target = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            if let Some(number) = self.numbers.remove(&path) {
                self.paths.insert(number, target.clone());
                self.numbers.insert(target, number);
            }
        }
    }
}

impl State {
    fn new(root: PathBuf) -> Self {
        let mut names = Names { paths: HashMap::new(), numbers: HashMap::new(), next: 0 };
        names.of(root);
        Self { plan: Mutex::default(), names: Mutex::new(names), files: Mutex::default() }
    }

    /// Counts a call; how it fails, if it does.
    fn strikes(&self, call: Call) -> Option<Kind> {
        let mut plan = held(&self.plan);
        let fault = plan.fault.filter(|fault| fault.kind.concerns(call))?;
        plan.calls += 1;
        let strikes = plan.calls == fault.at || fault.lasting && plan.calls > fault.at;
        if !strikes {
            return None;
        }
        plan.struck = plan.struck.or(Some(call));
        Some(fault.kind)
    }

    /// Fails where the call does.
    fn pass(&self, call: Call) -> Answer<()> {
        match self.strikes(call) {
            Some(kind) => Err(kind.code()),
            None => Ok(()),
        }
    }

    fn path(&self, number: INodeNo) -> Answer<PathBuf> {
        held(&self.names).paths.get(&number).cloned().ok_or(Errno::ENOENT)
    }

    fn below(&self, parent: INodeNo, name: &OsStr) -> Answer<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn file(&self, handle: FileHandle) -> Answer<Arc<File>> {
        held(&self.files).open.get(&handle.0).map(|(_, file)| file.clone()).ok_or(Errno::EBADF)
    }

    fn opened(&self, number: INodeNo, file: File) -> FileHandle {
        let mut files = held(&self.files);
        files.next += 1;
        let handle = files.next;
        files.open.insert(handle, (number, Arc::new(file)));
        FileHandle(handle)
    }

    /// By its name, or while it has none any more, by whoever has it open.
    fn metadata(&self, number: INodeNo) -> Answer<Metadata> {
        match self.path(number) {
            Ok(path) => Ok(fs::symlink_metadata(path)?),
            Err(gone) => {
                let files = held(&self.files);
                let open = files.open.values().find(|(of, _)| *of == number);
                Ok(open.ok_or(gone)?.1.metadata()?)
            }
        }
    }

    fn entry(&self, path: PathBuf) -> Answer<FileAttr> {
        let metadata = fs::symlink_metadata(&path)?;
        Ok(attributes(held(&self.names).of(path), &metadata))
    }

    fn create(&self, path: PathBuf, mode: u32) -> Answer<(FileAttr, FileHandle)> {
        self.pass(Call::Create)?;
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        let attributes = self.entry(path)?;
        let handle = self.opened(attributes.ino, file);
        Ok((attributes, handle))
    }

    fn make_folder(&self, path: PathBuf) -> Answer<FileAttr> {
        self.pass(Call::Create)?;
        fs::create_dir(&path)?;
        self.entry(path)
    }

    fn remove(&self, path: &Path, remove: fn(&Path) -> io::Result<()>) -> Answer<()> {
        self.pass(Call::Remove)?;
        remove(path)?;
        held(&self.names).forget(path);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Answer<()> {
        self.pass(Call::Rename)?;
        fs::rename(from, to)?;
        held(&self.names).moved(from, to);
        Ok(())
    }

    fn link(&self, from: &Path, to: PathBuf) -> Answer<FileAttr> {
        self.pass(Call::Link)?;
        fs::hard_link(from, &to)?;
        self.entry(to)
    }

    fn resize(&self, number: INodeNo, handle: Option<FileHandle>, size: u64) -> Answer<()> {
        self.pass(Call::Resize)?;
        let file = match handle {
            Some(handle) => self.file(handle)?,
            None => Arc::new(File::options().write(true).open(self.path(number)?)?),
        };
        Ok(file.set_len(size)?)
    }

    fn write(&self, handle: FileHandle, offset: u64, data: &[u8]) -> Answer<u32> {
        let file = self.file(handle)?;
        let taken = match self.strikes(Call::Write) {
            None => data,
            Some(Kind::Short) => &data[..data.len().div_ceil(2)],
            Some(Kind::Lost) => return Ok(data.len() as u32),
            Some(kind) => return Err(kind.code()),
        };
        file.write_all_at(taken, offset)?;
        Ok(taken.len() as u32)
    }

    fn read(&self, handle: FileHandle, offset: u64, size: u32) -> Answer<Vec<u8>> {
        let file = self.file(handle)?;
        self.pass(Call::Read)?;
        let mut data = vec![0; size as usize];
        let mut filled = 0;
        while filled < data.len() {
            match file.read_at(&mut data[filled..], offset + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        data.truncate(filled);
        Ok(data)
    }

    fn allocate(&self, handle: FileHandle, (offset, length): (u64, u64), mode: i32) -> Answer<()> {
        let file = self.file(handle)?;
        self.pass(Call::Allocate)?;
        let flags = FallocateFlags::from_bits_retain(mode);
        fallocate(&*file, flags, offset.cast_signed(), length.cast_signed())
            .map_err(|error| Errno::from_i32(error as i32))
    }

    /// Names, numbers and kinds of what a folder holds.
    fn entries(&self, number: INodeNo) -> Answer<Vec<(INodeNo, FileType, std::ffi::OsString)>> {
        let folder = self.path(number)?;
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = FileType::from_std(entry.file_type()?).ok_or(Errno::EIO)?;
            entries.push((held(&self.names).of(entry.path()), kind, entry.file_name()));
        }
        Ok(entries)
    }
}

fn attributes(number: INodeNo, metadata: &Metadata) -> FileAttr {
    let time = |time: io::Result<SystemTime>| time.unwrap_or(SystemTime::UNIX_EPOCH);
    FileAttr {
        ino: number,
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.accessed()),
        mtime: time(metadata.modified()),
        ctime: time(metadata.modified()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: BLOCK,
        flags: 0,
    }
}

/// The calls of the kernel, each answered by [`State`].
#[derive(Debug, Clone)]
struct Passing(Arc<State>);

fn entry(answer: Answer<FileAttr>, reply: ReplyEntry) {
    match answer {
        Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(answer: Answer<()>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Passing {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.0.below(parent, name).and_then(|path| self.0.entry(path)), reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.0.metadata(number) {
            Ok(metadata) => reply.attr(&NO_TIME, &attributes(number, &metadata)),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let resized = size.map_or(Ok(()), |size| self.0.resize(number, handle, size));
        match resized.and_then(|()| self.0.metadata(number)) {
            Ok(metadata) => reply.attr(&NO_TIME, &attributes(number, &metadata)),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(self.0.below(parent, name).and_then(|path| self.0.make_folder(path)), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            self.0.below(parent, name).and_then(|path| self.0.remove(&path, |path| fs::remove_file(path))),
            reply,
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(
            self.0.below(parent, name).and_then(|path| self.0.remove(&path, |path| fs::remove_dir(path))),
            reply,
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let paths =
            self.0.below(parent, name).and_then(|from| Ok((from, self.0.below(new_parent, new_name)?)));
        empty(paths.and_then(|(from, to)| self.0.rename(&from, &to)), reply);
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let paths = self.0.path(number).and_then(|from| Ok((from, self.0.below(parent, name)?)));
        entry(paths.and_then(|(from, to)| self.0.link(&from, to)), reply);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let writes = flags.acc_mode() != fuser::OpenAccMode::O_RDONLY;
        let opened = self
            .0
            .path(number)
            .and_then(|path| Ok(self.0.opened(number, File::options().read(true).write(writes).open(path)?)));
        match opened {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.0.below(parent, name).and_then(|path| self.0.create(path, mode)) {
            Ok((attributes, handle)) => {
                reply.created(&NO_TIME, &attributes, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.0.read(handle, offset, size) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(handle, offset, data) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        held(&self.0.files).open.remove(&handle.0);
        reply.ok();
    }

    // The files are in memory: what counts is what is asked, and what becomes of whoever is refused.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _only_data: bool, reply: ReplyEmpty) {
        empty(self.0.pass(Call::Sync), reply);
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _only_data: bool, reply: ReplyEmpty) {
        empty(self.0.pass(Call::Sync), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        empty(self.0.allocate(handle, (offset, length), mode), reply);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.0.entries(number) {
            Ok(entries) => {
                for (at, (number, kind, name)) in (1..).zip(entries).skip(offset as usize) {
                    if reply.add(number, at, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS / 2, BLOCKS / 2, BLOCKS, BLOCKS / 2, BLOCK, 255, BLOCK);
    }
}
