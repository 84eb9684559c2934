create table archived (id int primary key, article text not null);
