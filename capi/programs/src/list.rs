//! The programs, and what they are given to do. Each writes a result that does not depend on the allocator.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::Allocator;
use crate::redis;
use crate::run::{Sample, run};

pub(crate) type Outcome = Result<(Sample, Vec<u8>)>;

/// A program with its work.
pub(crate) struct Program {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    /// Commands that must be installed.
    pub(crate) needs: &'static [&'static str],
    /// Makes the input, in a folder of its own.
    pub(crate) prepare: fn(&Path) -> Result<()>,
    /// What it took and wrote, in the folder where its input is, with an allocator.
    pub(crate) run: fn(&Path, &Allocator) -> Outcome,
}

fn nothing(_: &Path) -> Result<()> {
    Ok(())
}

/// Runs a script that is given by `-e` or the like.
fn script(command: &str, flag: &str, text: &str, allocator: &Allocator) -> Outcome {
    run(Command::new(command).args([flag, text]), allocator)
}

/// Runs a Python script by the interpreter itself: `python3` may be a script that looks for it.
fn python(text: &str, allocator: &Allocator) -> Outcome {
    let mut find = Command::new("python3");
    let found = find
        .args(["-c", "import sys; print(sys.executable)"])
        .output()?;
    let path = String::from_utf8(found.stdout)?;
    script(path.trim_end(), "-c", text, allocator)
}

pub(crate) fn programs() -> Vec<Program> {
    vec![
        Program {
            name: "python-json",
            what: "writes and reads 40 MB of JSON",
            needs: &["python3"],
            prepare: nothing,
            run: |_, allocator| python(PYTHON_JSON, allocator),
        },
        Program {
            name: "python-objects",
            what: "trees, strings and dictionaries",
            needs: &["python3"],
            prepare: nothing,
            run: |_, allocator| python(PYTHON_OBJECTS, allocator),
        },
        Program {
            name: "sqlite",
            what: "a table of 400 000 rows in memory, indexed, joined, deleted",
            needs: &["sqlite3"],
            prepare: |folder| Ok(fs::write(folder.join("work.sql"), SQL)?),
            run: |folder, allocator| {
                let input = format!(".read {}", folder.join("work.sql").display());
                run(
                    Command::new("sqlite3").arg(":memory:").arg(input),
                    allocator,
                )
            },
        },
        Program {
            name: "g++",
            what: "compiles a C++ file full of templates",
            needs: &["g++"],
            prepare: |folder| Ok(fs::write(folder.join("big.cpp"), cpp())?),
            run: |folder, allocator| {
                let mut command = Command::new("g++");
                command.args(["-std=c++17", "-O1", "-S", "-o", "-", "big.cpp"]);
                run(command.current_dir(folder), allocator)
            },
        },
        Program {
            name: "gcc",
            what: "compiles 800 functions of C",
            needs: &["gcc"],
            prepare: |folder| Ok(fs::write(folder.join("big.c"), c())?),
            run: |folder, allocator| {
                let mut command = Command::new("gcc");
                command.args(["-O1", "-S", "-o", "-", "big.c"]);
                run(command.current_dir(folder), allocator)
            },
        },
        Program {
            name: "perl",
            what: "hashes, sorting, splitting and joining",
            needs: &["perl"],
            prepare: nothing,
            run: |_, allocator| script("perl", "-e", PERL, allocator),
        },
        Program {
            name: "git",
            what: "packs the history of 4 000 files, and reads it",
            needs: &["git", "sh"],
            prepare: git_prepare,
            run: |folder, allocator| {
                let text = "git repack -adfq --threads=2 && git fsck --full 2>&1 && git log --stat --format=%T | cksum";
                run(
                    Command::new("sh").args(["-c", text]).current_dir(folder),
                    allocator,
                )
            },
        },
        Program {
            name: "ruby",
            what: "hashes, strings, structs and sorting",
            needs: &["ruby"],
            prepare: nothing,
            run: |_, allocator| script("ruby", "-e", RUBY, allocator),
        },
        Program {
            name: "node",
            what: "JSON, maps and buffers",
            needs: &["node"],
            prepare: nothing,
            run: |_, allocator| script("node", "-e", NODE, allocator),
        },
        Program {
            name: "jq",
            what: "filters 10 MB of JSON",
            needs: &["jq"],
            prepare: |folder| Ok(fs::write(folder.join("in.json"), json())?),
            run: |folder, allocator| {
                let mut command = Command::new("jq");
                command.args(["-c", "[.[] | select(.id % 3 == 0) | {id, name, n: (.tags | length)}] | group_by(.n) | map(length)", "in.json"]);
                run(command.current_dir(folder), allocator)
            },
        },
        Program {
            name: "lua",
            what: "tables, closures and strings",
            needs: &["lua5.4"],
            prepare: nothing,
            run: |_, allocator| script("lua5.4", "-e", LUA, allocator),
        },
        Program {
            name: "redis",
            what: "a server, 1 000 000 requests in all, then emptied; its own processor time",
            needs: &["redis-server", "redis-benchmark", "redis-cli"],
            prepare: nothing,
            run: redis::run,
        },
    ]
}

const PYTHON_JSON: &str = r#"
import json, hashlib
rows = [{"id": i, "name": "name %d" % (i * 7919 % 100003), "tags": ["t%d" % (i % k + 1) for k in (3, 5, 7)],
         "nested": {"x": i / 3, "y": [i, i + 1, None, True]}} for i in range(120000)]
total = 0
for _ in range(2):
    text = json.dumps(rows)
    total += len(text)
    back = json.loads(text)
    assert back == rows
print(total, hashlib.sha1(text.encode()).hexdigest())
"#;

const PYTHON_OBJECTS: &str = r#"
import random
random.seed(7)
class Node:
    def __init__(self, key):
        self.key, self.left, self.right = key, None, None
def insert(root, key):
    node = root
    while True:
        side = "left" if key < node.key else "right"
        child = getattr(node, side)
        if child is None:
            setattr(node, side, Node(key))
            return
        node = child
root = Node(500000)
for _ in range(60000):
    insert(root, random.randrange(1000000))
words = {}
for i in range(600000):
    word = "w" * (i % 900) + str(i * 7919 % 200003)
    words[word] = words.get(word, 0) + 1
    if i % 5 == 0:
        words.pop(next(iter(words)))
arrays = [bytearray(random.randrange(600, 200000)) for _ in range(300)]
for i in range(30000):
    arrays[random.randrange(300)] = bytearray(random.randrange(600, 200000))
print(len(words), sum(map(len, arrays)), sum(words.values()))
"#;

const SQL: &str = "
PRAGMA journal_mode=OFF;
CREATE TABLE a(id INTEGER PRIMARY KEY, name TEXT, score REAL, note TEXT);
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400000)
INSERT INTO a SELECT i, 'name ' || (i * 7919 % 100003), i * 0.37, substr('some note of a length that differs', 1, i % 34) FROM n;
CREATE INDEX by_name ON a(name);
CREATE INDEX by_score ON a(score, note);
SELECT count(*), sum(length(name)), max(note) FROM a;
SELECT count(*) FROM a x JOIN a y ON x.name = y.name AND x.id < y.id;
SELECT substr(name, 1, 7) AS k, count(*), group_concat(note, '') FROM a GROUP BY k ORDER BY 2 DESC, 1 LIMIT 3;
UPDATE a SET note = note || name WHERE id % 3 = 0;
DELETE FROM a WHERE id % 2 = 0;
SELECT count(*), sum(length(note)) FROM a;
";

const PERL: &str = r#"
my (%h, @list);
for my $i (0 .. 500_000) {
    my $k = "key " . ($i * 7919 % 100_003);
    push @{ $h{$k} }, $i;
    $list[$i % 5000] = join(",", map { $_ * $i } 1 .. ($i % 9)) x ($i % 30);
}
my $n = 0;
for my $k (sort keys %h) { $n += scalar(@{ $h{$k} }) * length($k) }
for my $line (@list) { my @parts = split /,/, $line; $n += @parts }
my $text = "";
$text .= "$_;" for 1 .. 800_000;
$text =~ s/7+/seven/g;
print "$n ", length($text), "\n";
"#;

const RUBY: &str = r#"
Point = Struct.new(:x, :y, :label)
h = Hash.new { |hash, key| hash[key] = [] }
300_000.times { |i| h["key #{i * 7919 % 50_021}"] << Point.new(i, i * 0.5, "p#{i}" * (i % 13)) }
total = h.values.flatten.sort_by { |p| [-p.y, p.label] }.each_slice(7).sum { |s| s.map(&:label).join(",").size }
text = +""
300_000.times { |i| text << i.to_s << ";" }
puts total, text.gsub(/7+/, "seven").size, h.keys.map(&:to_sym).uniq.size
"#;

const NODE: &str = r#"
const rows = [];
for (let i = 0; i < 120000; i++) rows.push({ id: i, name: 'name ' + (i * 7919 % 100003), tags: [i % 3, i % 5, String(i % 7)] });
let size = 0;
for (let k = 0; k < 4; k++) { const text = JSON.stringify(rows); size += text.length; JSON.parse(text); }
const map = new Map();
for (let i = 0; i < 400000; i++) map.set('k' + (i * 31 % 100003), i);
const buffers = [];
for (let i = 0; i < 60000; i++) { buffers[i % 500] = Buffer.alloc(1000 + i % 60000, 1); size += buffers[i % 500][i % 1000]; }
console.log(size, map.size);
"#;

const LUA: &str = r#"
local t, n = {}, 0
for i = 1, 600000 do
  local k = "k" .. (i * 7919 % 100003)
  local e = t[k] or {}
  e[#e + 1] = { i, tostring(i) }
  t[k] = e
end
for k, e in pairs(t) do n = n + #k * #e end
local parts = {}
for i = 1, 400000 do parts[#parts + 1] = ("x"):rep(i % 40) .. i end
print(n, #table.concat(parts, ","))
"#;

fn json() -> String {
    let mut text = String::from("[");
    for i in 0..110_000_u64 {
        let comma = if i == 0 { "" } else { "," };
        let name = i * 7919 % 100_003;
        let tags = vec!["\"tag\""; (i % 7) as usize].join(",");
        let _ = write!(
            text,
            "{comma}{{\"id\":{i},\"name\":\"name {name}\",\"tags\":[{tags}],\"x\":{}.5}}",
            i / 3
        );
    }
    text.push(']');
    text
}

fn cpp() -> String {
    let mut text = String::from(
        "#include <map>\n#include <string>\n#include <vector>\n#include <regex>\n#include <functional>\n\
         #include <unordered_map>\n#include <memory>\n#include <algorithm>\n#include <sstream>\n",
    );
    for i in 0..8 {
        let _ = writeln!(
            text,
            "struct T{i} {{ int a[{0}]; bool operator<(const T{i}& o) const {{ return a[0] < o.a[0]; }} }};\n\
             int f{i}(int n) {{ std::map<T{i}, std::vector<std::string>> m; std::unordered_map<int, \
             std::shared_ptr<T{i}>> u; for (int k = 0; k < n; k++) {{ T{i} t{{}}; t.a[0] = k; \
             m[t].push_back(std::to_string(k)); u[k] = std::make_shared<T{i}>(t); }} \
             std::vector<std::function<int(int)>> fs; fs.push_back([&](int x) {{ return x + int(m.size()); }}); \
             std::ostringstream s; for (auto& p : m) s << p.second.size(); return fs[0]({i}) + int(u.size()); }}",
            i + 1
        );
    }
    text
}

fn c() -> String {
    let mut text = String::from("#include <stdio.h>\n#include <string.h>\n");
    for i in 0..800 {
        let _ = writeln!(
            text,
            "int f{i}(int a, char *b) {{ int s = {i}; for (int k = 0; k < a; k++) {{ s += b[k] * {}; if (s > {i}) s ^= k; }} \
             return s + (int)strlen(b); }}",
            i % 97 + 1
        );
    }
    text
}

fn git_prepare(folder: &Path) -> Result<()> {
    for commit in 0..20_usize {
        for number in 0..200_usize {
            let place = folder
                .join(format!("d{}", number % 17))
                .join(format!("f{commit}_{number}.txt"));
            fs::create_dir_all(place.parent().context("a folder")?)?;
            let line = |i: usize| {
                format!(
                    "line {} of {}\n",
                    i * 7919 % (commit + number + 3),
                    number * i % 101
                )
            };
            fs::write(place, (0..150 + number).map(line).collect::<String>())?;
        }
        let text = if commit == 0 { "git init -q . && " } else { "" };
        let text = format!(
            "{text}git add -A && git -c user.name=a -c user.email=a@b commit -qm {commit} --date=@{commit}"
        );
        let status = Command::new("sh")
            .args(["-c", &text])
            .current_dir(folder)
            .status()?;
        if !status.success() {
            bail!("git ended with {status}");
        }
    }
    Ok(())
}
