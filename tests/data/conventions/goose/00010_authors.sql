-- +goose Up
-- +goose StatementBegin
create function names() returns setof text language plpgsql as $$
begin
    return next 'Ada';
    return next 'Grace';
end;
$$;
-- +goose StatementEnd
create table authors as select name from names() as name; -- both of them
drop function names();

-- +goose Down
-- +goose StatementBegin
drop table authors;
-- +goose StatementEnd
