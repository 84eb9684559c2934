create temporary table names (name text) on commit drop;
insert into names values ('Ada'), ('Grace');
create table authors as select name from names;
