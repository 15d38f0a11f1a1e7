"""Tag: two chasers hunt one runner in mpe2's `simple_tag_v3`; moving may have a private cost."""

from tasks.tag.task import Tag

__all__ = ["Tag"]
