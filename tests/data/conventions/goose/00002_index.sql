-- +goose NO TRANSACTION
-- +goose up
create index concurrently notes_by_text on notes (text);
vacuum notes;

-- +goose down
drop index notes_by_text;
