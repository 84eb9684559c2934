---- tern: disable-tx ----
create index concurrently notes_by_text on notes (text);
vacuum notes;

---- create above / drop below ----

drop index notes_by_text;
