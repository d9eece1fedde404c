"""The wire's messages: their text, their descriptor, their classes."""
