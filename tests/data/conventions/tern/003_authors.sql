set search_path = pg_temp, public;
create temporary table names (name text) on commit drop;
insert into names values ('Ada'), ('Grace');
create table public.authors as select name from names;
