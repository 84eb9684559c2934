begin;
create table authors (name text);
commit;
