CREATE TABLE orders (
    id INT PRIMARY KEY AUTO_INCREMENT,
    customer_id INT NOT NULL REFERENCES customers (id),
    article VARCHAR(100) NOT NULL
);

DELIMITER //
CREATE TRIGGER articles_are_lower_case BEFORE INSERT ON orders FOR EACH ROW
BEGIN
    SET NEW.article = lower(NEW.article);
END //
DELIMITER ;
