//! What curl sees: paths, statuses, headers, formats, settings, encodings.

use crate::server::{Server, encoded};

#[test]
fn health_and_paths() {
    let server = Server::start();
    for path in ["/ping", "/", "/replicas_status"] {
        let answer = server.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, "Ok.\n"), "{path}");
    }
    let answer = server.get("/nothing/here?query=SELECT+1");
    assert_eq!(answer.status, 404);
    assert!(answer.text().starts_with("There is no handle /nothing/here"), "{}", answer.text());
    assert_eq!(server.curl(&["-X", "OPTIONS"], "/", None).status, 204);
    let bare = server.curl(&["-X", "POST"], "/?query=SELECT+1", None);
    assert_eq!((bare.status, bare.header("x-clickhouse-exception-code")), (411, Some("381")));
    let head = server.curl(&["--head"], "/?query=SELECT+1", None);
    assert_eq!((head.status, head.header("x-clickhouse-format")), (200, Some("TabSeparated")));
}

#[test]
fn a_query_comes_by_url_or_body_or_half_by_each() {
    let server = Server::start();
    assert_eq!(server.get("/?query=SELECT+1").text(), "1\n");
    assert_eq!(server.post("/", "SELECT 2").text(), "2\n");
    assert_eq!(server.post("/?query=SELECT", "3").text(), "3\n");
    assert_eq!(server.post("/query?query=", "SELECT 4;").text(), "4\n");
    let chunked = server.curl(&["-H", "Transfer-Encoding: chunked"], "/", Some(b"SELECT 5"));
    assert_eq!(chunked.text(), "5\n");
    // Braces, semicolons and comments in strings, and the other way round.
    assert_eq!(server.run("/* a; */ SELECT ';' -- ; 'x'"), ";\n");
}

#[test]
fn headers_say_what_was_done() {
    let server = Server::start();
    let answer = server.get("/?query=SELECT+number+FROM+numbers(10)+FORMAT+JSONCompact&query_id=an-id");
    assert_eq!(answer.header("x-clickhouse-query-id"), Some("an-id"));
    assert_eq!(answer.header("x-clickhouse-format"), Some("JSONCompact"));
    assert_eq!(answer.header("content-type"), Some("application/json; charset=UTF-8"));
    assert_eq!(answer.header("x-clickhouse-exception-tag").map(str::len), Some(16));
    assert!(answer.header("x-clickhouse-timezone").is_some());
    assert!(answer.header("x-clickhouse-server-display-name").is_some());
    let summary = answer.header("x-clickhouse-summary").expect("a summary");
    assert!(
        summary.contains("\"read_rows\":\"10\"") && summary.contains("\"result_rows\":\"10\""),
        "{summary}"
    );

    server.run("CREATE TABLE t (a UInt8) ENGINE = Memory");
    let answer = server.post("/?query=INSERT+INTO+t+FORMAT+TSV", "1\n2\n3\n");
    let summary = answer.header("x-clickhouse-summary").expect("a summary");
    assert!(summary.contains("\"written_rows\":\"3\""), "{summary}");
    assert_eq!(answer.text(), "");
    let own = server.get("/?query=SELECT+1").header("x-clickhouse-query-id").map(str::len);
    assert_eq!(own, Some(36), "a UUID");
}

#[test]
fn formats_are_named_by_the_query_the_url_or_a_header() {
    let server = Server::start();
    let sql = encoded("SELECT 1 AS a, 'x' AS b");
    assert_eq!(server.get(&format!("/?query={sql}")).text(), "1\tx\n");
    assert_eq!(server.get(&format!("/?query={sql}&default_format=CSV")).text(), "1,\"x\"\n");
    let header = server.curl(&["-H", "X-ClickHouse-Format: JSONEachRow"], &format!("/?query={sql}"), None);
    assert_eq!(header.text(), "{\"a\":1,\"b\":\"x\"}\n");
    let both = server.get(&format!("/?query={sql}+FORMAT+TSVWithNames&default_format=CSV"));
    assert_eq!(both.text(), "a\tb\n1\tx\n");
    for (format, start) in
        [("Parquet", "PAR1"), ("ArrowStream", "\u{fffd}"), ("Native", "\u{2}\u{1}"), ("Vertical", "Row 1:")]
    {
        let answer = server.get(&format!("/?query={sql}&default_format={format}"));
        assert!(answer.text().starts_with(start), "{format}: {}", answer.text());
    }
    assert_eq!(server.run("SHOW TABLES"), "");
    assert_eq!(server.run("EXISTS TABLE nothing FORMAT CSV"), "0\n");
    let described = server.run("DESCRIBE (SELECT 1 AS a) FORMAT TSV");
    assert!(described.starts_with("a\tUInt8"), "{described}");
    let totals =
        "SELECT number % 2 AS k, count() FROM numbers(4) GROUP BY k WITH TOTALS ORDER BY k FORMAT CSV";
    assert_eq!(server.run(totals), "0,2\n1,2\n\n0,4\n");
}

#[test]
fn errors_have_the_servers_status_code_and_text() {
    let server = Server::start();
    server.run("CREATE TABLE t (a UInt8) ENGINE = Memory");
    let cases: [(&str, u16, u16, &str); 12] = [
        ("SELECT * FROM nothing", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT * FROM nothing.t", 404, 81, "UNKNOWN_DATABASE"),
        ("SELECT nothing FROM t", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT noSuchFunction(1)", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT 1 FORMAT Nothing", 404, 73, "UNKNOWN_FORMAT"),
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1; SELECT 2", 400, 62, "SYNTAX_ERROR"),
        ("", 400, 62, "SYNTAX_ERROR"),
        ("SELECT toUInt8('x')", 400, 6, "CANNOT_PARSE_TEXT"),
        (
            "SELECT sleep(3) SETTINGS max_execution_time = 1, timeout_before_checking_execution_speed = 0",
            408,
            159,
            "TIMEOUT_EXCEEDED",
        ),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
        ("SELECT 1 INTO OUTFILE '/dev/null'", 500, 358, "INTO_OUTFILE_NOT_ALLOWED"),
    ];
    for (sql, status, code, name) in cases {
        let answer = server.post("/", sql);
        let text = answer.text();
        assert_eq!(answer.status, status, "{sql}: {text}");
        assert_eq!(answer.header("x-clickhouse-exception-code"), Some(code.to_string().as_str()), "{sql}");
        assert!(text.starts_with(&format!("Code: {code}. DB::Exception: ")), "{text}");
        assert!(
            text.contains(&format!("({name}) (version ")) && text.ends_with(" (official build))\n"),
            "{text}"
        );
    }
    let insert = server.post("/?query=INSERT+INTO+t+FORMAT+RowBinary+SETTINGS+nothing=1", b"\x01");
    assert_eq!(insert.header("x-clickhouse-exception-code"), Some("115"), "{}", insert.text());
    let insert = server.post("/?query=INSERT+INTO+t+FORMAT+CSV", "1\nx\n");
    assert_eq!(
        (insert.status, insert.header("x-clickhouse-exception-code")),
        (400, Some("117")),
        "{}",
        insert.text()
    );
    assert!(!insert.text().contains("/proc/"), "{}", insert.text());
}

#[test]
fn settings_hold_for_one_request() {
    let server = Server::start();
    let sql = encoded("SELECT getSetting('max_block_size'), getSetting('join_use_nulls')");
    assert_eq!(server.get(&format!("/?max_block_size=77&join_use_nulls=1&query={sql}")).text(), "77\ttrue\n");
    assert_eq!(server.get(&format!("/?query={sql}")).text(), "65409\tfalse\n");
    let unknown = server.get("/?query=SELECT+1&no_such_setting=1");
    assert_eq!((unknown.status, unknown.header("x-clickhouse-exception-code")), (404, Some("115")));
    assert!(unknown.text().contains("no_such_setting is neither a builtin setting"), "{}", unknown.text());
    let wrong = server.get("/?query=SELECT+1&max_threads=x");
    assert_eq!(wrong.status, 400, "{}", wrong.text());
}

#[test]
fn parameters_are_escaped_as_tab_separated() {
    let server = Server::start();
    let sql = encoded("SELECT {a:String}, {b:Array(UInt8)}, {c:Nullable(String)}");
    let answer =
        server.get(&format!("/?query={sql}&param_a={}&param_b=[1,2]&param_c=%5CN", encoded("x'y\\\\z\\t")));
    assert_eq!(answer.text(), "x\\'y\\\\z\\t\t[1,2]\t\\N\n");
    let missing = server.get(&format!("/?query={sql}"));
    assert_eq!(missing.header("x-clickhouse-exception-code"), Some("456"));
    let form = server.curl(&["-F", "query=SELECT {a:UInt8} + 1", "-F", "param_a=41"], "/", None);
    assert_eq!(form.text(), "42\n");
    let table = server.curl(
        &["-F", "t=\"1,one\n2,two\n\";filename=t.csv"],
        &format!(
            "/?query={}&t_structure=a+UInt8,b+String&t_format=CSV",
            encoded("SELECT b FROM t WHERE a = 2")
        ),
        None,
    );
    assert_eq!(table.text(), "two\n");
}

#[test]
fn the_database_comes_by_url_or_header() {
    let server = Server::start();
    let sql = encoded("SELECT currentDatabase()");
    assert_eq!(server.get(&format!("/?query={sql}")).text(), "default\n");
    assert_eq!(server.get(&format!("/?query={sql}&database=system")).text(), "system\n");
    let header = server.curl(&["-H", "X-ClickHouse-Database: system"], &format!("/?query={sql}"), None);
    assert_eq!(header.text(), "system\n");
    let unknown = server.get("/?query=SELECT+1&database=nothing");
    assert_eq!((unknown.status, unknown.header("x-clickhouse-exception-code")), (404, Some("81")));
}

#[test]
fn get_only_reads() {
    let server = Server::start();
    server.run("CREATE TABLE t (a UInt8) ENGINE = Memory");
    for sql in ["INSERT INTO t VALUES (1)", "DROP TABLE t", "CREATE TABLE u (a UInt8) ENGINE = Memory"] {
        let answer = server.get(&format!("/?query={}", encoded(sql)));
        assert_eq!(
            (answer.status, answer.header("x-clickhouse-exception-code")),
            (500, Some("164")),
            "{sql}"
        );
    }
    let answer = server.curl(&["-X", "GET"], "/?query=INSERT+INTO+t+FORMAT+CSV", Some(b"1"));
    assert_eq!(answer.header("x-clickhouse-exception-code"), Some("164"));
    assert_eq!(server.run("SELECT count() FROM t"), "0\n");
}

#[test]
fn binary_data_are_data_whatever_they_look_like() {
    let server = Server::start();
    server.run("CREATE TABLE t (a UInt64, b String DEFAULT 'd') ENGINE = MergeTree ORDER BY a");
    // Line breaks, quotes, semicolons and SQL among the bytes.
    let hostile = b"\n\n\n\n;'\"`".repeat(2_000);
    let answer = server.post("/?query=INSERT+INTO+t+(a)+FORMAT+RowBinary", &hostile);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.run("SELECT count(), uniq(a), any(b) FROM t"), "2000\t1\td\n");
    // The statement and its data in one body, with settings before or after the format.
    for sql in [
        "INSERT INTO t (a) SETTINGS max_insert_threads = 1 FORMAT RowBinary\n",
        "INSERT INTO t (a) FORMAT RowBinary SETTINGS max_insert_threads = 1, async_insert = 0\n",
    ] {
        let answer = server.post("/", [sql.as_bytes(), &hostile].concat());
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text());
    }
    assert_eq!(server.run("SELECT count() FROM t"), "6000\n");
    assert_eq!(server.post("/?query=INSERT+INTO+t+FORMAT+Native", "").status, 200, "no data are no rows");
    server.run("INSERT INTO t VALUES (7, 'a;b'), (8, 'c')");
    assert_eq!(server.run("SELECT b FROM t WHERE a < 9 ORDER BY a"), "a;b\nc\n");
    let input = encoded("INSERT INTO t SELECT a + 1, b FROM input('a UInt64, b String') FORMAT CSV");
    assert_eq!(server.post(&format!("/?query={input}"), "8,n\n").status, 200);
    assert_eq!(server.run("SELECT b FROM t WHERE a = 9"), "n\n");
    assert_eq!(server.post("/?query=INSERT+INTO+t+SELECT+10,'s'", "").status, 200);
}

#[test]
fn bodies_are_packed_both_ways() {
    let server = Server::start();
    server.run("CREATE TABLE t (a UInt32) ENGINE = Memory");
    let sql = "/?query=SELECT+number+FROM+numbers(300000)";
    let plain = server.get(sql);
    assert_eq!(plain.header("content-encoding"), None);
    let packed = server.curl(&["--compressed", "-H", "Accept-Encoding: gzip"], sql, None);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body == plain.body, "gzip");
    let off =
        server.curl(&["-H", "Accept-Encoding: gzip"], &format!("{sql}&enable_http_compression=0"), None);
    assert_eq!(off.header("content-encoding"), None);

    // What the server packed it takes as it is.
    let unpack = |path: &str, encoding: &str| {
        let packed = server.curl(&["-H", &format!("Accept-Encoding: {encoding}")], path, None);
        assert!(packed.body.len() < plain.body.len(), "{path} {encoding}");
        server.run("TRUNCATE TABLE t");
        let header = format!("Content-Encoding: {encoding}");
        let decompress = if path.contains("compress=1") { "&decompress=1" } else { "" };
        let target = format!("/?query=INSERT+INTO+t+FORMAT+TSV{decompress}");
        let answer = server.curl(&["-H", &header], &target, Some(&packed.body));
        assert_eq!(answer.status, 200, "{encoding}: {}", answer.text());
        assert_eq!(server.run("SELECT sum(a) FROM t"), "44999850000\n", "{encoding}");
    };
    for encoding in ["gzip", "deflate", "zstd", "lz4"] {
        unpack(sql, encoding);
    }
    unpack(&format!("{sql}&compress=1"), "identity");
    let broken =
        server.post("/?query=INSERT+INTO+t+FORMAT+TSV&decompress=1", b"not a frame, but long enough for one");
    assert_eq!((broken.status, broken.header("x-clickhouse-exception-code")), (500, Some("271")));
}

#[test]
fn an_error_in_the_middle_breaks_the_answer_off() {
    let server = Server::start();
    let sql = "SELECT number, throwIf(number = 3000000) FROM numbers(4000000)";
    let answer = server.post("/", sql);
    assert_eq!((answer.status, answer.complete), (200, false));
    let tag = answer.header("x-clickhouse-exception-tag").expect("a tag");
    let text = answer.text();
    let (_, block) = text.split_once("\r\n__exception__\r\n").expect("an exception");
    let block = block.strip_prefix(&format!("{tag}\r\n")).expect("the tag");
    let message = block.strip_suffix(&format!(" {tag}\r\n__exception__\r\n")).expect("the end");
    let (message, length) = message.rsplit_once('\n').expect("a length");
    assert_eq!(length.parse(), Ok(message.len() + 1));
    assert!(message.starts_with("Code: 395. DB::Exception: "), "{message}");
    // Kept back, it is an answer of its own.
    let whole = server.post("/?wait_end_of_query=1", sql);
    assert_eq!((whole.status, whole.complete), (500, true));
    assert!(whole.text().starts_with("Code: 395."), "{}", whole.text());
    let buffered = server.post("/?buffer_size=100000000", sql);
    assert_eq!(buffered.status, 500);
}
