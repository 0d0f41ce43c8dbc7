//! Runs the targets under libFuzzer, one process each: `make fuzz`.

use std::ffi::{CString, c_char, c_int};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::OnceLock;

use clap::Parser;
use luminate_fuzz::grow::word;
use luminate_fuzz::{TARGETS, Target, seeded};

/// Feeds decoders with what grows of their seeds until time is over or one of them fails.
#[derive(Debug, Parser)]
struct Arguments {
    /// Targets; all if none is named.
    targets: Vec<String>,
    /// How long for each target.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What all that is random follows from.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Where inputs are kept that reached something new.
    #[arg(long, default_value = "fuzz-corpus")]
    corpus: PathBuf,
    /// Longest input, in bytes.
    #[arg(long, default_value_t = 8_192)]
    longest: u32,
    /// Puts a fault in, which must be found.
    #[arg(long)]
    control: bool,
    /// Is the process of one target.
    #[arg(long, hide = true)]
    child: bool,
}

impl Arguments {
    /// Where a target's inputs are.
    fn folder(&self, target: &Target) -> PathBuf {
        self.corpus.join(if self.control { "control" } else { "inputs" }).join(target.name)
    }
}

static CHECK: OnceLock<fn(&[u8])> = OnceLock::new();

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    if let Some(check) = CHECK.get() {
        check(input);
    }
});

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let chosen: Vec<&Target> = TARGETS
        .iter()
        .filter(|target| {
            arguments.targets.is_empty() || arguments.targets.iter().any(|name| name == target.name)
        })
        .collect();
    if chosen.is_empty() || (!arguments.targets.is_empty() && chosen.len() < arguments.targets.len()) {
        let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        eprintln!("there are these targets: {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    if arguments.child {
        return run_child(&arguments, chosen[0]);
    }
    let reports: Vec<Report> = chosen.iter().map(|target| attack(&arguments, target)).collect();
    let found = reports.iter().filter(|report| report.failed).count();
    let inputs: u64 = reports.iter().map(|report| report.inputs).sum();
    let passed = if arguments.control { found == reports.len() } else { found == 0 };
    println!(
        "{}: {} targets, {inputs} inputs, {found} failures{}",
        if passed { "passed" } else { "failed" },
        reports.len(),
        if arguments.control { " of the faults put in" } else { "" },
    );
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Report {
    inputs: u64,
    failed: bool,
}

/// Runs a target in a process of its own and prints what came of it.
fn attack(arguments: &Arguments, target: &Target) -> Report {
    let folder = arguments.folder(target);
    prepare(&folder, target, arguments.control);
    let mut command = Command::new(std::env::current_exe().expect("a program has a path"));
    command.args([target.name, "--child", "--seconds", &arguments.seconds.to_string()]);
    command.args(["--seed", &arguments.seed.to_string(), "--longest", &arguments.longest.to_string()]);
    command.arg("--corpus").arg(&arguments.corpus).args(arguments.control.then_some("--control"));
    let mut child =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("this program starts");
    let (mut inputs, mut reached, mut last) = (0, String::new(), Vec::new());
    let errors = BufReader::new(child.stderr.take().expect("it is piped"));
    for line in errors.lines().map_while(Result::ok) {
        if let Some(count) = line.strip_prefix("stat::number_of_executed_units:") {
            inputs = count.trim().parse().unwrap_or(0);
        }
        if let Some((_, rest)) = line.split_once(" cov: ") {
            reached = rest.split_whitespace().next().unwrap_or_default().to_owned();
        }
        last.push(line);
        if last.len() > 60 {
            last.remove(0);
        }
    }
    let failed = !child.wait().expect("a child ends").success();
    let outcome = if failed { "FAILED" } else { "held" };
    println!("{:<14} {outcome}, {inputs} inputs, {reached} branches reached", target.name);
    if failed && !arguments.control {
        println!("{}", last.join("\n"));
        println!("put the input that is named above into tests/fuzz/found/{}", target.name);
    }
    Report { inputs, failed }
}

/// Writes seeds and words to where libFuzzer reads them.
fn prepare(folder: &Path, target: &Target, control: bool) {
    if control {
        let _ = std::fs::remove_dir_all(folder);
    }
    std::fs::create_dir_all(folder).expect("the corpus can be written");
    for (at, seed) in (target.seeds)().iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{at}")), seed).expect("the corpus can be written");
    }
    let words: String = target.words.iter().map(|text| format!("\"{}\"\n", escaped(&word(text)))).collect();
    std::fs::write(folder.with_extension("dict"), words).expect("the corpus can be written");
}

/// A word as libFuzzer's dictionaries write it.
fn escaped(word: &[u8]) -> String {
    word.iter()
        .map(|byte| match byte {
            b'"' | b'\\' | ..0x20 | 0x7F.. => format!("\\x{byte:02x}"),
            byte => char::from(*byte).to_string(),
        })
        .collect()
}

fn run_child(arguments: &Arguments, target: &Target) -> ExitCode {
    if arguments.control {
        seeded::put_in();
    }
    CHECK.get_or_init(|| target.check);
    libfuzzer_sys::initialize(std::ptr::null(), std::ptr::null());
    let folder = arguments.folder(target);
    let path = |path: &Path| path.to_str().expect("the corpus has a path in UTF-8").to_owned();
    let mut driven = vec![
        "fuzz".to_owned(),
        format!("-max_total_time={}", arguments.seconds),
        format!("-seed={}", arguments.seed),
        format!("-max_len={}", arguments.longest),
        format!("-artifact_prefix={}-failed-", path(&folder)),
        "-print_final_stats=1".to_owned(),
        "-timeout=10".to_owned(),
        "-rss_limit_mb=2048".to_owned(),
        "-use_value_profile=1".to_owned(),
        path(&folder),
    ];
    if !target.words.is_empty() {
        driven.push(format!("-dict={}", path(&folder.with_extension("dict"))));
    }
    drive(&driven)
}

#[allow(unsafe_code, reason = "libFuzzer's driver is C++; it takes arguments as main does")]
fn drive(arguments: &[String]) -> ExitCode {
    unsafe extern "C" {
        fn LLVMFuzzerRunDriver(
            count: *mut c_int,
            arguments: *mut *mut *mut c_char,
            check: unsafe extern "C" fn(*const u8, usize) -> c_int,
        ) -> c_int;
        fn LLVMFuzzerTestOneInput(input: *const u8, length: usize) -> c_int;
    }
    let owned: Vec<CString> =
        arguments.iter().map(|argument| CString::new(argument.as_str()).expect("no zero byte")).collect();
    let mut pointers: Vec<*mut c_char> = owned.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
    pointers.push(std::ptr::null_mut());
    let mut count = c_int::try_from(owned.len()).expect("a few arguments");
    let mut pointers = pointers.as_mut_ptr();
    // SAFETY: count and arguments are as of main, and outlive the call.
    let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut pointers, LLVMFuzzerTestOneInput) };
    if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
