//! A power cut, as near as software comes: an ext4 on a loop device that forgets all it was not told
//! to keep.
//!
//! `FS_IOC_SHUTDOWN` without a flush of the journal stops the file system at once: what is dirty in
//! memory never reaches the image, and the next mount replays the journal as after a real cut. (A
//! SIGKILL proves less: the kernel still has every page that was written and not synced.)

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

const IMAGE_BYTES: u64 = 1 << 30;

/// A mounted file system of its own.
#[derive(Debug)]
pub struct Volume {
    folder: TempDir,
    mounted: bool,
}

impl Volume {
    /// Makes an empty one, its image in memory where that is possible.
    ///
    /// # Errors
    /// When there is no root, loop device or mkfs.ext4.
    pub fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let mut volume = Self { folder, mounted: false };
        File::create(volume.image())?.set_len(IMAGE_BYTES)?;
        fs::create_dir(volume.path())?;
        run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), volume.image().as_path()])?;
        volume.mount()?;
        Ok(volume)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mount(&mut self) -> io::Result<()> {
        run("mount", &["-o".as_ref(), "loop".as_ref(), &self.image(), &self.path()])?;
        self.mounted = true;
        Ok(())
    }

    /// Cuts the power: from now on nothing that is written reaches the image.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cut(&self) -> io::Result<()> {
        shutdown(&File::open(self.path())?)
    }

    /// Mounts it again; nobody may have a file of it open.
    ///
    /// # Errors
    /// When it can't be unmounted or mounted.
    pub fn restore(&mut self) -> io::Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn unmount(&mut self) -> io::Result<()> {
        // Threads of a killed process may hold their files for a moment longer.
        for _ in 0..100 {
            if run("umount", &[&self.path()]).is_ok() {
                self.mounted = false;
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        run("umount", &[&self.path()])
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            // The image is in use and stays where it is.
            self.folder.disable_cleanup(true);
        }
    }
}

fn run(program: &str, arguments: &[&Path]) -> io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    match output.status.success() {
        true => Ok(()),
        false => {
            Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
    }
}

#[allow(unsafe_code, reason = "an ioctl has no safe wrapper; this one reads the flags it is given")]
fn shutdown(folder: &File) -> io::Result<()> {
    mod call {
        nix::ioctl_read!(fs_ioc_shutdown, b'X', 125, u32);
    }
    const NO_LOG_FLUSH: u32 = 2;
    let mut flags = NO_LOG_FLUSH;
    // SAFETY: the kernel reads four bytes at the address of `flags`, which lives until it returns.
    unsafe { call::fs_ioc_shutdown(std::os::fd::AsRawFd::as_raw_fd(folder), &raw mut flags) }?;
    Ok(())
}
