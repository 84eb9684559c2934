drop index notes_by_text;
