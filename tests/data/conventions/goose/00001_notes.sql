-- Notes, and what they say.

-- +goose Up
create table notes (
    id bigint generated always as identity primary key,
    text text not null
);

-- +goose Down
drop table notes;
