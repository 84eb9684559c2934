create index concurrently notes_by_text on notes (text);
create table authors (name text);
