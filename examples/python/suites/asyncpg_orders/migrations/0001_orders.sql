create table orders (id bigint generated always as identity primary key, article text not null);
