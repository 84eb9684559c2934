alter table orders add customer text not null default 'cash';
