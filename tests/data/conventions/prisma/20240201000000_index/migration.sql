-- CreateIndex
create index concurrently notes_by_text on notes (text);
