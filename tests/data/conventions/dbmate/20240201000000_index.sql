-- migrate:up transaction:false
create index concurrently notes_by_text on notes (text);

-- migrate:down transaction:false
drop index concurrently notes_by_text;
