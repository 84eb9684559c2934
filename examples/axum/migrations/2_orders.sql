create table orders (
    id serial primary key,
    customer_id int not null references customers,
    article text not null check (article <> '')
);
