---- DOWN MIGRATION ----
drop index notes_by_text;

---- UP MIGRATION ----
create index notes_by_text on notes (text);
