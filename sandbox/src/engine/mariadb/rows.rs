//! Rows of a table: comma-separated values by LOAD DATA.

use crate::engine::Dialect;

/// Loads the rows of a file: `$1` is the file, the others are the client.
///
/// The rows are rewritten for LOAD DATA, which tells NULL from an empty text otherwise than other
/// databases do: each value gets quotes, and an empty one without quotes becomes the word NULL. A
/// quote that is doubled stays so. The server turns refusals of rows that a client sends into
/// warnings, so each warning is an error here.
pub(super) const LOAD: &str = r#"
file=$1; shift
warnings=$({ { awk '
    function fail(cause) {
        failed = 1
        print "ERROR at line " begin " in file: \047/dev/stdin\047: " cause >"/dev/stderr"
        exit 1
    }
    function whole(text) { return gsub(/"/, "\"", text) % 2 == 0 }
    function emit(text,    out, value) {
        sub(/\r$/, "", text)
        text = text ","
        while (text != "") {
            if (match(text, /^"([^"]|"")*",/)) value = substr(text, 1, RLENGTH - 1)
            else if (match(text, /^[^",]*,/)) {
                value = substr(text, 1, RLENGTH - 1)
                value = value == "" ? "NULL" : "\"" value "\""
            } else {
                fail("a quote is inside of a value")
            }
            out = out (out == "" ? "" : ",") value
            text = substr(text, RLENGTH + 1)
        }
        print out
    }
    record == "" && !open { begin = NR }
    { record = open ? record "\n" $0 : $0; open = !whole(record) }
    open { next }
    !headed {
        if (record ~ /\r./) fail("lines end with carriage returns only")
        headed = 1; record = ""; next
    }
    { emit(record); record = "" }
    END { if (open && !failed) fail("a quote is not closed") }
' <"$file" || echo refused >&3; } | "$@" 3>&-; } 3>&1) || exit 1
! printf '%s\n' "$warnings" | grep -qx refused || exit 1
refused=$(printf '%s\n' "$warnings" | grep -E '^(Warning|Error) ' | head -n 1)
[ -z "$refused" ] || { printf 'ERROR: %s\n' "$refused" >&2; exit 1; }
"#;

/// Returns the statements that load rewritten rows from the client's standard input. A server may
/// refuse rows that a client sends, as MySQL's does by default.
pub(super) fn load(table: &str, columns: &[String]) -> String {
    let quote = |name: &str| Dialect::MySql.identifier(name);
    let table = table.splitn(2, '.').map(quote).collect::<Vec<_>>().join(".");
    let columns: Vec<_> = columns.iter().map(|column| quote(column)).collect();
    format!(
        "SET @local = @@GLOBAL.local_infile; SET GLOBAL local_infile = 1; \
         LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE {table} CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' \
         ENCLOSED BY '\"' ESCAPED BY '' LINES TERMINATED BY '\\n' ({}); \
         SET GLOBAL local_infile = @local",
        columns.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tables_and_columns_are_quoted() {
        let load = load("shop.it's `x`.y", &["a b".to_owned(), "C".to_owned()]);
        assert!(load.contains("INTO TABLE `shop`.`it's ``x``.y` CHARACTER SET"), "{load}");
        assert!(load.contains("(`a b`, `C`); SET"), "{load}");
    }
}
