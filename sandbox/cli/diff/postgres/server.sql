-- Returns the definitions that belong to the whole server as rows of kind, name and definition. A
-- hash stands for a password, so that a change shows.
SELECT 'role', quote_ident(rolname),
    concat_ws(E'\n',
        CASE WHEN rolsuper THEN 'superuser' END, CASE WHEN rolcanlogin THEN 'login' END,
        CASE WHEN rolcreatedb THEN 'creates databases' END, CASE WHEN rolcreaterole THEN 'creates roles' END,
        CASE WHEN rolreplication THEN 'replication' END, CASE WHEN rolbypassrls THEN 'bypasses row level security' END,
        CASE WHEN NOT rolinherit THEN 'inherits nothing' END,
        CASE WHEN rolconnlimit >= 0 THEN format('%s connections', rolconnlimit) END,
        'password ' || md5(rolpassword), 'valid until ' || rolvaliduntil)
FROM pg_authid WHERE oid = 10 OR oid >= 16384

UNION ALL
SELECT DISTINCT 'membership', format('%s in %s', member::regrole, roleid::regrole), CASE WHEN admin_option THEN 'admin' ELSE '' END
FROM pg_auth_members WHERE member >= 16384 OR member = 10

UNION ALL
SELECT 'database', quote_ident(datname),
    concat_ws(E'\n', 'owner ' || nullif(datdba, 10)::regrole, format('encoding %s', pg_encoding_to_char(encoding)),
        format('locale %s', datcollate), CASE WHEN datistemplate THEN 'template' END,
        CASE WHEN NOT datallowconn THEN 'no connections' END,
        CASE WHEN datconnlimit >= 0 THEN format('%s connections', datconnlimit) END, 'privileges ' || datacl::text)
FROM pg_database

UNION ALL
SELECT 'setting', concat_ws(' ', 'of role ' || nullif(setrole, 0)::regrole,
    'in database ' || (SELECT quote_ident(datname) FROM pg_database d WHERE d.oid = setdatabase)),
    array_to_string(setconfig, E'\n')
FROM pg_db_role_setting

UNION ALL
SELECT 'setting', name || ', by ALTER SYSTEM', setting
FROM pg_file_settings WHERE sourcefile LIKE '%postgresql.auto.conf'
