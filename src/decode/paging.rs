//! What an API says about pages: whether a list is one page of several.

/// A member that says something about pages. All names are compared without case and punctuation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PagingMember {
    /// The next page, as a link, a cursor or a number.
    Next,
    /// A cursor that may be that of this page or of the next.
    Cursor,
    /// A flag that says whether more follows.
    HasMore,
    /// A flag that says whether this is the last page.
    IsLast,
    /// The number of this page.
    CurrentPage,
    /// The number of the last page, or of all pages.
    LastPage,
    /// How many entries there are in all.
    Total,
    /// Entries before this page.
    Offset,
    /// The relation of a link, as in `{"rel":"next","href":…}`.
    Relation,
    /// Anything else of a page: its size, its links to itself and to pages before.
    Other,
}

impl PagingMember {
    /// What a normalised name (lower case, letters and digits only) says of pages.
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "next" | "nextpage" | "nextpageurl" | "nextpageuri" | "nextpagelink" | "nextlink"
            | "nexturl" | "nexturi" | "nexthref" | "nextcursor" | "nexttoken" | "nextpagetoken"
            | "nextpagenumber" | "nextpagecursor" | "nextoffset" | "nextkey" | "nextmarker"
            | "nextbatch" | "nextset" | "nextrecordsurl" | "odatanextlink" | "continue"
            | "continuation" | "continuationtoken" | "continuationkey" | "pagingstate"
            | "lastevaluatedkey" | "scrollid" => Self::Next,
            "cursor" => Self::Cursor,
            "hasmore" | "hasnext" | "hasnextpage" | "hasmorepages" | "hasmoreresults"
            | "hasmoreitems" | "hasmoredata" | "morepages" | "moreresults" | "moreitems"
            | "moredata" | "moreavailable" | "nextpageavailable" | "more" | "truncated"
            | "istruncated" | "incomplete" | "isincomplete" | "incompleteresults" | "partial"
            | "ispartial" => Self::HasMore,
            "last" | "islast" | "islastpage" | "endoflist" | "isfinal" | "complete"
            | "iscomplete" | "completed" | "done" | "finished" => Self::IsLast,
            "page" | "currentpage" | "pagenumber" | "pagenum" | "pageno" | "current" => {
                Self::CurrentPage
            }
            "lastpage" | "lastpagenumber" | "totalpages" | "totalpage" | "pagestotal"
            | "pagetotal" | "pagecount" | "pagescount" | "numpages" | "numberofpages"
            | "maxpage" | "pages" => Self::LastPage,
            "total" | "totalcount" | "totalitems" | "totalelements" | "totalresults"
            | "totalrecords" | "totalrows" | "totalentries" | "totalchats" | "totalhits"
            | "count" | "itemcount" | "itemscount" | "recordstotal" | "recordcount"
            | "resultcount" | "resultscount" | "chatcount" | "chatscount" | "numchats"
            | "numfound" | "nbhits" | "numberofelements" => Self::Total,
            "offset" | "skip" => Self::Offset,
            "rel" => Self::Relation,
            "first" | "firstpage" | "firstpageurl" | "lastpageurl" | "prev" | "previous"
            | "prevpage" | "previouspage" | "prevpageurl" | "previouspageurl" | "prevcursor"
            | "previouscursor" | "hasprev" | "hasprevious" | "hasprevpage" | "haspreviouspage"
            | "self" | "from" | "to" | "perpage" | "limit" | "pagesize" | "itemsperpage"
            | "size" | "before" | "after" | "endcursor" | "startcursor" | "links" | "link"
            | "paging" | "pagination" | "pageinfo" | "pageable" | "pager" | "cursors" => {
                Self::Other
            }
            _ => return None,
        })
    }
}

/// A value beside the list, read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'a> {
    /// `null`, `""`, `[]` or `{}`: nothing is said.
    Nothing,
    Bool(bool),
    /// A number, or a text that is one, as it was written.
    Number(&'a str, f64),
    Text(&'a str),
}

impl<'a> Scalar<'a> {
    /// A text, which may be a flag or a number in quotes.
    pub(crate) fn of_text(text: &'a str) -> Self {
        let text = text.trim();
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "" | "null" => Self::Nothing,
            "true" | "yes" => Self::Bool(true),
            "false" | "no" => Self::Bool(false),
            _ => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Self::Number(text, number),
                _ => Self::Text(text),
            },
        }
    }

    /// Whether it stands for a link, a cursor or a page: anything but nothing, no and 0.
    fn is_something(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Bool(flag) => flag,
            Self::Number(_, number) => number != 0.0,
            Self::Text(_) => true,
        }
    }
}

/// What was said about pages so far, in the headers and in the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Paging {
    /// A member that says that more pages follow, or that entries came before.
    more: Option<String>,
    /// A cursor that may be of this page or of the next.
    cursor: Option<String>,
    says_no_more: bool,
    current: Option<f64>,
    last: Option<f64>,
    /// The highest total.
    total: Option<f64>,
}

impl Paging {
    /// Takes down a member; `path` is how it is quoted.
    pub(crate) fn note(&mut self, member: PagingMember, path: &str, value: Scalar<'_>) {
        match (member, value) {
            (PagingMember::Next, value) if value.is_something() => self.note_more(path),
            (PagingMember::Cursor, Scalar::Text(_) | Scalar::Number(..)) => {
                self.cursor = Some(path.to_owned());
            }
            (PagingMember::HasMore, value) if value.is_something() => self.note_more(path),
            (PagingMember::HasMore, _) => self.says_no_more = true,
            (PagingMember::IsLast, Scalar::Bool(true)) => self.says_no_more = true,
            (PagingMember::IsLast, Scalar::Bool(false)) => self.note_more(path),
            (PagingMember::CurrentPage, Scalar::Number(_, page)) => self.current = Some(page),
            (PagingMember::LastPage | PagingMember::IsLast, Scalar::Number(_, page)) => {
                self.last = Some(self.last.map_or(page, |last| last.max(page)));
            }
            (PagingMember::Total, Scalar::Number(_, total)) => {
                self.total = Some(self.total.map_or(total, |known| known.max(total)));
            }
            (PagingMember::Offset, Scalar::Number(_, offset)) if offset > 0.0 => {
                self.note_more(path);
            }
            (PagingMember::Relation, Scalar::Text(relation))
                if relation.split_whitespace().any(is_next) =>
            {
                self.note_more(path);
            }
            _ => {}
        }
    }

    /// Takes down that a member says that this is not all.
    pub(crate) fn note_more(&mut self, path: &str) {
        self.more.get_or_insert_with(|| path.to_owned());
    }

    /// Whether the list is one page of several, whatever is in it.
    pub(crate) fn is_one_of_several(&self) -> bool {
        self.why(u64::MAX).is_some()
    }

    /// Why a list of so many entries is one page of several, in words; `None` where it is whole.
    pub(crate) fn why(&self, entries: u64) -> Option<String> {
        if let Some(path) = &self.more {
            return Some(format!("“{path}” says that there is more"));
        }
        if let Some(path) = self.cursor.as_ref().filter(|_| !self.says_no_more) {
            return Some(format!("“{path}” points to another page"));
        }
        match (self.current, self.last) {
            (Some(current), Some(last)) if last > 1.0 => {
                return Some(format!("it is page {current} of {last}"));
            }
            (None, Some(last)) if last > 1.0 => {
                return Some(format!("there are {last} pages"));
            }
            (Some(current), _) if current > 1.0 => return Some(format!("it is page {current}")),
            _ => {}
        }
        #[expect(clippy::cast_precision_loss, reason = "lists are shorter than 2^53")]
        let total = self.total.filter(|total| *total > entries as f64)?;
        Some(format!(
            "it counts {total} entries in all and holds {entries}"
        ))
    }
}

/// Whether a relation of a link is that of the next page.
pub(crate) fn is_next(relation: &str) -> bool {
    relation.eq_ignore_ascii_case("next")
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn why(facts: &[(&str, Scalar<'_>)], entries: u64) -> Option<String> {
        let mut paging = Paging::default();
        for (name, value) in facts {
            paging.note(PagingMember::of(name).unwrap(), name, *value);
        }
        paging.why(entries)
    }

    fn number(number: u32) -> Scalar<'static> {
        Scalar::Number("", f64::from(number))
    }

    #[test]
    fn a_page_of_several() {
        let text = Scalar::Text;
        for facts in [
            &[("next", text("/chats?page=2"))][..],
            &[
                ("nextcursor", text("abc")),
                ("hasmore", Scalar::Bool(false)),
            ],
            &[("nextpage", number(2))],
            &[("cursor", text("abc"))],
            &[("hasmore", Scalar::Bool(true))],
            &[("last", Scalar::Bool(false))],
            &[("currentpage", number(1)), ("lastpage", number(9))],
            &[("page", number(0)), ("totalpages", number(2))],
            &[("pages", number(2))],
            &[("page", number(3))],
            &[("offset", number(50))],
            &[("rel", text("next"))],
            &[("total", number(3))],
        ] {
            assert!(why(facts, 2).is_some(), "{facts:?}");
        }
    }

    #[test]
    fn a_list_with_nothing_left() {
        for facts in [
            &[("next", Scalar::Nothing)][..],
            &[("next", Scalar::Bool(false)), ("prev", Scalar::Text("x"))],
            &[("nextpage", number(0))],
            &[
                ("cursor", Scalar::Text("abc")),
                ("hasmore", Scalar::Bool(false)),
            ],
            &[("currentpage", number(1)), ("lastpage", number(1))],
            // Counted from zero.
            &[("page", number(0)), ("totalpages", number(1))],
            &[("last", Scalar::Bool(true)), ("total", number(2))],
            &[("last", Scalar::Text("https://api/chats?page=1"))],
            &[("count", number(1)), ("limit", number(100))],
            &[("rel", Scalar::Text("self"))],
        ] {
            assert_eq!(why(facts, 2), None, "{facts:?}");
        }
    }
}
