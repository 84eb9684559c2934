//! Migrations of real applications, as their packages ship them: after a run here, their tools find
//! nothing to do.
//!
//! `.ci/applications` fetches the packages, so that this repository holds no copy of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;
use sandboxed_db::{MigrationTool, Sandbox, Snapshot};
use sandboxed_db_tests::{column, connect, fresh, skip, start};
use tempfile::TempDir;

use crate::conventions::{apply_by_diesel, apply_by_refinery, apply_by_sqlx};

/// The directory that `.ci/applications` filled.
const APPLICATIONS: &str = "SANDBOXED_DB_TEST_APPLICATIONS";

/// All that migrations leave: the definitions of objects, their numbers of rows, and the rows of
/// bookkeeping tables without times.
const LEFT: &str = r#"
with schemas as (
    select oid, nspname from pg_namespace where nspname <> 'information_schema' and nspname !~ '^pg_'
)
select concat_ws(' ', 'schema', nspname) as line from schemas
union all select concat_ws(' ', 'extension', extname, extversion) from pg_extension
union all select concat_ws(' ', 'setting', setdatabase <> 0, setrole <> 0, setconfig) from pg_db_role_setting
union all select concat_ws(' ', 'relation', c.oid::regclass, relkind, relpersistence, reloptions, relacl)
    from pg_class c join schemas s on s.oid = relnamespace
union all select concat_ws(' ', 'column', attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod),
        attnotnull, attidentity, attgenerated, attcollation::regcollation, pg_get_expr(adbin, adrelid))
    from pg_attribute a join pg_class c on c.oid = attrelid join schemas s on s.oid = relnamespace
    left join pg_attrdef on adrelid = attrelid and adnum = attnum
    where attnum > 0
union all select concat_ws(' ', 'index', pg_get_indexdef(indexrelid), indisvalid)
    from pg_index join pg_class c on c.oid = indexrelid join schemas s on s.oid = relnamespace
union all select concat_ws(' ', 'constraint', conrelid::regclass, conname, pg_get_constraintdef(c.oid))
    from pg_constraint c join schemas s on s.oid = connamespace
union all select concat_ws(' ', 'view', c.oid::regclass, pg_get_viewdef(c.oid))
    from pg_class c join schemas s on s.oid = relnamespace where relkind in ('v', 'm')
union all select concat_ws(' ', 'sequence', schemaname, sequencename, data_type, last_value) from pg_sequences
union all select concat_ws(' ', 'trigger', pg_get_triggerdef(oid), tgenabled) from pg_trigger where not tgisinternal
union all select concat_ws(' ', 'function', pg_get_functiondef(p.oid))
    from pg_proc p join schemas s on s.oid = pronamespace where prokind in ('f', 'p')
union all select concat_ws(' ', 'type', t.oid::regtype, typtype, array(
        select enumlabel from pg_enum where enumtypid = t.oid order by enumsortorder))
    from pg_type t join schemas s on s.oid = typnamespace
union all select concat_ws(' ', 'comment', pg_describe_object(classoid, objoid, objsubid), description)
    from pg_description d join pg_class c on c.oid = objoid and classoid = 'pg_class'::regclass
    join schemas s on s.oid = relnamespace
union all select concat_ws(' ', 'rows', c.oid::regclass, xpath('//n/text()',
        query_to_xml(format('select count(*) n from %s', c.oid::regclass), false, true, '')))
    from pg_class c join schemas s on s.oid = relnamespace where relkind in ('r', 'm')
union all select concat_ws(' ', 'noted', c.oid::regclass, query_to_xml(format(
        'select to_jsonb(t) - %L::text[] from %s t order by version',
        '{installed_on,execution_time,run_on,applied_on}', c.oid::regclass), false, true, ''))
    from pg_class c where relkind = 'r'
    and relname in ('_sqlx_migrations', '__diesel_schema_migrations', 'refinery_schema_history')"#;

fn left(db: &Sandbox) -> BTreeSet<String> {
    column(&mut connect(db.url()), LEFT).into_iter().collect()
}

/// A directory of an application, if the applications were fetched.
pub(crate) fn application(directory: &str) -> Option<PathBuf> {
    let Some(applications) = std::env::var_os(APPLICATIONS) else {
        skip(&format!("{APPLICATIONS} does not name a directory filled by `.ci/applications`"));
        return None;
    };
    Some(Path::new(&applications).join(directory))
}

/// Counts migrations on disk, independently of this library and of the tool.
fn count(migrations: &Path) -> usize {
    let names = fs::read_dir(migrations).unwrap_or_else(|error| panic!("{}: {error}", migrations.display()));
    names
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.to_str().unwrap();
            path.join("up.sql").exists() || (name.ends_with(".sql") && !name.ends_with(".down.sql"))
        })
        .count()
}

/// Copies the migrations, and adds another one after them.
fn with_one_more(migrations: &Path, one_more: &str) -> TempDir {
    let copy = tempfile::tempdir().unwrap();
    let mut directories = vec![PathBuf::new()];
    while let Some(directory) = directories.pop() {
        fs::create_dir_all(copy.path().join(&directory)).unwrap();
        for entry in fs::read_dir(migrations.join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let name = directory.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                directories.push(name);
            } else {
                fs::copy(entry.path(), copy.path().join(name)).unwrap();
            }
        }
    }
    let added = copy.path().join(one_more);
    fs::create_dir_all(added.parent().unwrap()).unwrap();
    fs::write(added, "create table public.one_more ();\n").unwrap();
    copy
}

/// `run` has the tool apply the migrations that it misses, and returns their number.
#[track_caller]
fn assert_nothing_is_left_to_do(
    migrations: &Path,
    snapshot: Snapshot,
    one_more: &str,
    run: impl Fn(&Path, &Sandbox) -> usize,
) {
    let (db, own) = (snapshot.start().unwrap(), start());
    let all = count(migrations);
    assert_ne!(all, 0);
    assert_eq!(run(migrations, &own), all);
    let ours = left(&db);
    let differing: Vec<_> = ours.symmetric_difference(&left(&own)).cloned().collect();
    assert!(differing.is_empty(), "{differing:#?}");
    assert_eq!(run(migrations, &db), 0);
    assert_eq!(left(&db), ours);
    // The tool reads the table of this server.
    assert_eq!(run(with_one_more(migrations, one_more).path(), &db), 1);
    connect(db.url()).batch_execute("table public.one_more").unwrap();
}

#[rstest]
#[case::apalis("apalis-postgres/migrations", "public")]
#[case::atuin("atuin-server-postgres/migrations", "public")]
#[case::cala("cala-ledger/migrations", "public")]
#[case::sqlxmq("sqlxmq/migrations", "public")]
// Its migrations move sqlx's table to their schema, where the application has sqlx look for it.
#[case::underway("underway/migrations", "underway,public")]
fn sqlx_finds_an_applications_migrations_applied(#[case] migrations: &str, #[case] search_path: &str) {
    let Some(migrations) = application(migrations) else { return };
    let snapshot = fresh().migrations_of(MigrationTool::Sqlx, &migrations);
    assert_nothing_is_left_to_do(&migrations, snapshot, "99991231235959_one_more.sql", |directory, db| {
        apply_by_sqlx(directory, db, search_path)
    });
}

#[rstest]
#[case::fang("fang/postgres_migrations/migrations")]
#[case::lemmy("lemmy_db_schema/migrations")]
fn diesel_finds_an_applications_migrations_applied(#[case] migrations: &str) {
    let Some(migrations) = application(migrations) else { return };
    let snapshot = fresh().migrations(&migrations);
    assert_nothing_is_left_to_do(&migrations, snapshot, "9999-12-31-235959_one_more/up.sql", apply_by_diesel);
}

#[rstest]
#[case::durable_actors("durable-actors/migrations")]
fn refinery_finds_an_applications_migrations_applied(#[case] migrations: &str) {
    let Some(migrations) = application(migrations) else { return };
    let snapshot = fresh().migrations(&migrations);
    assert_nothing_is_left_to_do(&migrations, snapshot, "V9999__one_more.sql", apply_by_refinery);
}
