"""Metadata in SQL, through SQLAlchemy Core; its schema moves forward by Alembic migrations."""
